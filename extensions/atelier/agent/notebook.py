"""A notebook as work: a kernel of the image, cells one after another, and the executed notebook kept as it grows."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError
from nbformat import NotebookNode, from_dict, reads, writes

from atelier.agent.launching import Launcher
from atelier.agent.logfile import LogFile
from atelier.agent.notebook_end import KEY
from atelier.agent.outcome import Result, UserError, failed, how_ended, plain
from atelier.crash_points import crash_point
from atelier.local.cgroups import oom_kills
from atelier.local.plain import write_whole

LAUNCHER = Path(__file__).with_name("kernel_launcher.py")
SAVE_AFTER_S = 1.0
"""A cell that took longer than this is saved at its end."""

SAVE_EVERY_S = 3.0
SAVE_SHARE = 50
"""A cell that goes on is saved so often when it showed something, and at most a fiftieth of the time goes into that."""

READY_TIMEOUT_S = 60
CELL_TEXT = 1_000_000
"""Characters of printed text that one cell's output keeps."""

LONGEST_SCRATCH = 90
"""Bytes of a path below which a socket still has a name of its own (Linux: 107 in all)."""

_IN_CELL = re.compile(r"Cell In\[\d+\], line (\d+)")


class NotebookWork:
    """A `Work` that is a notebook.

    Parameters
    ----------
    source : Path
        The notebook as submitted.
    parameters : str
        Python source that sets the parameters; empty for none.
    python : str
        The image's interpreter.
    environment : mapping
        The kernel's whole environment.
    folder : Path
        Working directory.
    log : LogFile
        Gets what cells print.
    launcher : Launcher
        Begins the kernel.
    saved : Path
        Where the executed notebook lies, whole at any time.
    on_saved : callable
        Called after each save.
    on_cell : callable
        Called with (cells done, cells in all) as it goes on.
    is_left : callable
        Whether the cells that are left are for another attempt; asked after each cell.
    """

    def __init__(
        self, source: Path, *, parameters: str, python: str, environment: Mapping[str, str], folder: Path, log: LogFile,
        launcher: Launcher, saved: Path, on_saved: Callable[[], None], on_cell: Callable[[int, int], None],
        is_left: Callable[[], bool],
    ) -> None:  # fmt: skip
        notebook = reads(source.read_text(encoding="utf-8-sig"), as_version=4)  # type: ignore[no-untyped-call]
        self._notebook = with_parameters(notebook, parameters)
        self._python, self._environment, self._folder = python, dict(environment), folder
        self._log, self._saved, self._on_saved, self._on_cell = log, saved, on_saved, on_cell
        self._is_left = is_left
        self._launcher = launcher
        self._client: _Client | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._manager: AsyncKernelManager | None = None
        self._scratch = _scratch_folder(saved.parent)

    def run(self) -> Result:
        kills = oom_kills()
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                return runner.run(self._execute(kills))
        finally:
            self._save_at_end()
            shutil.rmtree(self._scratch, ignore_errors=True)

    async def _execute(self, kills: int) -> Result:
        self._loop = asyncio.get_running_loop()
        self._manager = self._make_manager()
        client = self._client = _Client(self._notebook, self._manager, self._folder, self._log, self._done)
        saving = asyncio.create_task(self._save_as_it_grows(client))
        try:
            return await self._run_cells(client, kills)
        except Exception as problem:
            if not client.has_begun or isinstance(problem, OSError):
                raise
            traceback.print_exc()
            words = f"The notebook's kernel sent what no kernel sends, in cell {self._code_number(client.cell_index)}"
            return Result("failed", "code_error", f"{words}: {problem!r}."[:500])
        finally:
            saving.cancel()

    async def _run_cells(self, client: _Client, kills: int) -> Result:
        try:
            await client.async_execute(env=self._environment, cwd=str(self._folder))
        except CellExecutionError as problem:
            return failed(self._user_error(client, problem), None)
        except DeadKernelError:
            return self._dead(client, kills)
        except _Left:
            return Result("preempted", "preempted")
        except RuntimeError as problem:
            if client.has_begun:
                raise
            if (words := self._launcher.problem()) is not None:
                return Result("failed", "start_failed", words)
            return Result("failed", "kernel_missing", f"The notebook's kernel did not start: {problem}.")
        return Result("succeeded", exit_code=0)

    async def _save_as_it_grows(self, client: _Client) -> None:
        pause_s, shown = SAVE_EVERY_S, 0
        while True:
            await asyncio.sleep(pause_s)
            if client.shown != shown:
                began, shown = time.monotonic(), client.shown
                try:
                    self._save()
                except OSError as problem:  # tried again; the last save tells the user
                    print(f"The notebook could not be saved: {problem}", flush=True)
                pause_s = max(SAVE_EVERY_S, SAVE_SHARE * (time.monotonic() - began))

    def _make_manager(self) -> AsyncKernelManager:
        specs = self._scratch / "kernels"
        (specs / "python3").mkdir(parents=True)
        argv = self._launcher.argv([self._python, str(LAUNCHER), "-f", "{connection_file}"])
        spec = {"argv": argv, "display_name": "Python 3", "language": "python", "metadata": {"debugger": False}}
        (specs / "python3" / "kernel.json").write_text(json.dumps(spec))
        finder = KernelSpecManager(kernel_dirs=[str(specs)], ensure_native_kernel=False)
        manager = AsyncKernelManager(kernel_name="python3", kernel_spec_manager=finder)
        manager.transport, manager.ip = "ipc", str(self._scratch / "ipc")
        manager.connection_file = str(self._scratch / "connection.json")
        return manager

    def _done(self, index: int, took_s: float, failed: bool) -> None:
        cells = [i for i, cell in enumerate(self._notebook.cells) if _is_own(cell) and cell.source.strip()]
        self._on_cell(sum(1 for i in cells if i < index + (not failed)), len(cells))
        if took_s > SAVE_AFTER_S:
            self._save()
        if self._is_left():
            raise _Left

    def _save(self) -> None:
        text = writes(self._notebook)  # type: ignore[no-untyped-call]
        crash_point("agent.notebook.before")
        write_whole(self._saved, text.encode())
        crash_point("agent.notebook.after")
        self._on_saved()

    def _save_at_end(self) -> None:
        """Save what there is; outputs that are none, which only a kernel that is none sends, are no notebook."""
        try:
            self._save()
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as problem:
            self._log.line(f"error: the executed notebook could not be written: {problem!r}")

    def _user_error(self, client: _Client, problem: CellExecutionError) -> UserError:
        index = client.cell_index
        number = self._code_number(index)
        outputs = self._notebook.cells[index].get("outputs", [])
        trace = next((plain("\n".join(out.traceback)) for out in outputs if out.output_type == "error"), str(problem))
        lines = [int(found) for found in _IN_CELL.findall(trace)]
        return UserError(problem.ename, problem.evalue, trace, number, None, lines[-1] if lines else None)

    def _code_number(self, index: int) -> int:
        """The cell's number among the user's own code cells, counted from 1."""
        return sum(1 for cell in self._notebook.cells[: index + 1] if _is_own(cell))

    @property
    def where(self) -> str:
        return "" if self._client is None else f"It was in cell {self._code_number(self._client.cell_index)}."

    def _dead(self, client: _Client, kills: int) -> Result:
        process = getattr(self._manager and self._manager.provisioner, "process", None)
        code = process.poll() if process is not None else None
        result = failed(None, code if code is not None else -9, oom_killed=oom_kills() > kills)
        number = self._code_number(client.cell_index)
        words = f"The kernel died in cell {number}: its process {how_ended(code)}."
        return replace(result, message=words)

    def interrupt(self) -> None:
        self._on_loop(lambda manager: manager.interrupt_kernel())

    def kill(self) -> None:
        self._on_loop(lambda manager: manager.signal_kernel(9))

    def _on_loop(self, action: Callable[[AsyncKernelManager], Any]) -> None:
        loop, manager = self._loop, self._manager
        if loop is None or manager is None or loop.is_closed() or not manager.has_kernel:
            return

        async def act() -> None:
            if manager.has_kernel:
                await action(manager)

        asyncio.run_coroutine_threadsafe(act(), loop)


def _scratch_folder(attempt: Path) -> Path:
    """Where the kernel's sockets lie: in the attempt's folder, which goes whatever dies, unless that is too deep."""
    folder = attempt / "kernel"
    if len(os.fsencode(folder)) > LONGEST_SCRATCH:
        return Path(tempfile.mkdtemp(prefix="atelier-"))
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


class _Loop(asyncio.SelectorEventLoop):
    """Leaves the signals to the agent: nbclient would take SIGTERM, end the kernel, and leave the agent without any.

    It lets a loop be that has no signals to give, as one outside the main thread.
    """

    def add_signal_handler(self, sig: int, callback: Callable[..., object], *args: object) -> None:
        raise RuntimeError("signals are the agent's")

    def remove_signal_handler(self, sig: int) -> bool:
        raise RuntimeError("signals are the agent's")


class _Left(Exception):
    """The rest of the notebook is for the next attempt."""


class _Client(NotebookClient):
    """nbclient, telling what cells print and how long they took."""

    def __init__(
        self,
        notebook: NotebookNode,
        manager: AsyncKernelManager,
        folder: Path,
        log: LogFile,
        done: Callable[[int, float, bool], None],
    ) -> None:
        super().__init__(
            notebook,
            km=manager,
            kernel_name="python3",
            timeout=None,
            startup_timeout=READY_TIMEOUT_S,
            shutdown_kernel="immediate",
            store_widget_state=True,
            resources={"metadata": {"path": str(folder)}},
        )
        self.cell_index = self._printed = self._count = 0
        self.has_begun = False
        self.shown = 0
        """How many messages the kernel has sent that a notebook may show."""
        self._log, self._done, self._began = log, done, time.monotonic()
        self.on_cell_execute = self._begin_cell
        self.on_cell_executed = self._end_cell

    def _begin_cell(self, cell: NotebookNode, cell_index: int) -> None:
        crash_point("agent.cell.before")
        self.has_begun = True
        self.cell_index, self._began, self._printed = cell_index, time.monotonic(), 0
        self._count += 1
        cell.execution_count = self._count  # the kernel says the same, unless it dies before

    def _end_cell(self, cell: NotebookNode, cell_index: int, execute_reply: Mapping[str, Any]) -> None:
        crash_point("agent.cell.after")
        failed = execute_reply["content"]["status"] == "error" and "raises-exception" not in cell.metadata.get(
            "tags", []
        )
        self._done(cell_index, time.monotonic() - self._began, failed)

    def _fits(self, content: dict[str, Any]) -> bool:
        """Whether printed text goes into the notebook: the log has all of it, a cell's output a bounded part."""
        before, self._printed = self._printed, self._printed + len(content.get("text", ""))
        if before <= CELL_TEXT < self._printed:
            content["text"] = (
                content["text"][: CELL_TEXT - before] + "\n[… the rest of this output is in the run's log]\n"
            )
        return before <= CELL_TEXT

    def process_message(self, msg: dict[str, Any], cell: NotebookNode, cell_index: int) -> Any:
        """Take a message of the kernel into the notebook, and what it shows as text into the log."""
        kind, content = msg["msg_type"], msg.get("content", {})
        self.shown += 1
        if kind == "stream":
            self._log.write(content.get("text", "").encode(errors="backslashreplace"))
            if not self._fits(content):
                return None
        elif kind in {"display_data", "execute_result"}:
            self._log.line(str(content.get("data", {}).get("text/plain", "")))
        elif kind == "error":
            self._log.line("\n".join(content.get("traceback", [])))
        return super().process_message(msg, cell, cell_index)


def _is_own(cell: NotebookNode) -> bool:
    """Whether it is a code cell of the user's, and not the one that sets parameters."""
    return bool(cell.cell_type == "code" and "injected-parameters" not in cell.metadata.get("tags", []))


def with_parameters(notebook: NotebookNode, parameters: str) -> NotebookNode:
    """The notebook with a cell that sets the parameters after the one tagged ``parameters``; an older one goes."""
    cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if parameters:
        cell = _code_cell(parameters, with_id=notebook.nbformat_minor >= 5)
        tagged = [i for i, each in enumerate(cells) if "parameters" in each.metadata.get("tags", [])]
        cells.insert(tagged[0] + 1 if tagged else 0, cell)
    notebook.cells = cells
    notebook.metadata.pop(KEY, None)  # of the run that this notebook was kept from
    for cell in cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def _code_cell(source: str, *, with_id: bool) -> NotebookNode:
    cell: dict[str, Any] = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": source}
    cell |= {"outputs": [], "execution_count": None}
    return from_dict(cell | {"id": "injected-parameters"} if with_id else cell)  # type: ignore[no-untyped-call,no-any-return]
