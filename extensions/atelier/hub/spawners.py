"""Starts user servers as local processes: a checked choice, the image's kernel, back once the server listens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jupyterhub.spawner import SimpleLocalProcessSpawner, SpawnException
from traitlets import Unicode

from atelier import wire
from atelier.errors import AtelierError
from atelier.hub.pages import picker
from atelier.hub.profiles import Pick, image_cards, machine_cards, options_of_form, pick
from atelier.hub.site import Site, login_name
from atelier.hub.workplace import Workplace, check_user
from atelier.local import processes
from atelier.local.catalog import effective_catalog
from atelier.local.computer import this_computer
from atelier.local.logs import log_tail
from atelier.settings import Catalog, load_settings

POLL_S = 0.02
LEFTOVER_PATIENCE_S = 2.0


class RefusedChoice(SpawnException):
    """A choice that can't be started: a 400 with our words, and no failure of the hub."""

    def __init__(self, problem: AtelierError) -> None:
        super().__init__(f"{problem.message} {problem.hint}".strip(), reason=problem.code.replace("_", "-"))
        self.jupyterhub_message = self.message


class ServerDied(Exception):
    """The server's process ended before it listened; the page shows the end of its log."""

    def __init__(self, status: int, log: Path) -> None:
        super().__init__(f"The server ended with code {status}; its log is {log}")
        tail = log_tail(log, lines=3)
        self.jupyterhub_message = (
            f"The server ended with code {status} before it answered. Its log, {log}, ends: {tail}"
        )


class LocalSpawner(SimpleLocalProcessSpawner):
    """User servers as processes of this account, one ``Workplace`` each."""

    atelier_home = Unicode(help="ATELIER_HOME of the platform.").tag(config=True)
    pid: int
    user_options: dict[str, Any]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.options_from_form = options_of_form
        self.options_from_query = options_of_form
        self.apply_user_options = _checked_at_start
        self.options_form = _picker_of
        self._environment: dict[str, str] = {}
        self._started_at = ""

    @property
    def workplace(self) -> Workplace:
        """The folders of this server's user."""
        return Workplace.of(self.user.name, Path(self.atelier_home), login_name())

    @property
    def groups(self) -> tuple[str, ...]:
        """Hub groups of the user, which say what they may use."""
        return tuple(group.name for group in self.user.orm_user.groups)

    def catalog(self) -> Catalog:
        """The catalog of now: an image that was just installed can be picked without a restart of the hub."""
        home = Path(self.atelier_home)
        return effective_catalog(load_settings(home / "atelier.yaml"), home)

    def _default_home_dir(self) -> str:
        return str(self.workplace.home)

    async def start(self) -> tuple[str, int]:
        """Start the server that the user's options name, and return once it accepts connections.

        Raises
        ------
        RefusedChoice
            The options are wrong, or name what this user or this computer can't have; or the user's name is too long.
        ServerDied
            The process ended before it listened.
        """
        try:
            check_user(self.user.name)
            computer = await asyncio.to_thread(this_computer)
            chosen = pick(self.catalog(), self.user_options, self.groups, computer)
            self.user_options = self.orm_spawner.user_options = chosen.names
            await self._prepare(chosen)
        except AtelierError as problem:
            raise RefusedChoice(problem) from problem
        with self._log_for_output():
            ip, port = await super().start()
        self._started_at = processes.started_at(self.pid)
        await self._wait_until_listening(ip, port)
        return ip, port

    async def _prepare(self, chosen: Pick) -> None:
        workplace, home = self.workplace, Path(self.atelier_home)
        overlay = await asyncio.to_thread(workplace.prepare, chosen.image, chosen.machine, home)
        self._environment = workplace.environment(overlay, chosen.image, chosen.machine)
        self._environment["ATELIER_URL"] = Site.load(home).service_url + wire.PREFIX
        self.home_dir = self.notebook_dir = str(workplace.home)
        self.cpu_limit, self.mem_limit = chosen.machine.cpu, chosen.machine.memory
        self.args = ["--allow-root"] if os.geteuid() == 0 else []

    @contextmanager
    def _log_for_output(self) -> Iterator[None]:
        """Let the server write to a new log; the hub itself keeps no hold of it."""
        log = os.open(self.workplace.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            self.popen_kwargs = {"stdout": log, "stderr": log}
            yield
        finally:
            os.close(log)

    async def _wait_until_listening(self, ip: str, port: int) -> None:
        """The hub's own wait doubles its pauses and costs 1.2 s; this one costs a connection each 20 ms."""
        while True:
            status = await self.poll()
            if status is not None:
                raise ServerDied(status, self.workplace.log)
            try:
                _, writer = await asyncio.open_connection(ip, port)
            except OSError:
                await asyncio.sleep(POLL_S)
                continue
            writer.close()
            return

    def get_env(self) -> dict[str, str]:
        """The hub's variables, then the workplace's; never the module path of the hub's own process."""
        return {**super().get_env(), "LOGNAME": self.user.name, **self._environment}

    async def stop(self, now: bool = False) -> None:
        """Stop the server, then what its kernels and terminals left behind."""
        await super().stop(now)
        mark = f"ATELIER_SERVER={self.workplace.folder}".encode()
        await asyncio.to_thread(processes.end, lambda: processes.marked(mark.__eq__), patience_s=LEFTOVER_PATIENCE_S)

    def get_state(self) -> dict[str, Any]:
        """The process id, with what tells it from a later process of the same id."""
        return {**super().get_state(), **({"started_at": self._started_at} if self.pid else {})}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take up a server that outlived the hub; after a reboot its id may be a stranger's, never to be signalled."""
        super().load_state(state)
        self._started_at = state.get("started_at", "")

    async def poll(self) -> int | None:
        """None while the server runs, else its exit code (0 when it is not this hub's child and so has none).

        The hub's own question, whether the process takes signal 0, is answered by a zombie and by a stranger, too.
        """
        if self.proc is None and self.pid and processes.started_at(self.pid) != self._started_at:
            self.clear_state()
        status: int | None = await super().poll()
        return status

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """What the waiting page says; the hub adds the last step itself."""
        yield {"progress": 15, "message": "Preparing your workplace"}
        while not self.pid:
            await asyncio.sleep(0.05)
        yield {"progress": 45, "message": "Waiting for JupyterLab to answer"}

    def delete_forever(self) -> None:
        """Called when the user is deleted: their files are put apart."""
        self.workplace.put_away()


def _checked_at_start(spawner: LocalSpawner, options: Mapping[str, Any]) -> None:
    """Options are looked at in `LocalSpawner.start`, where a refusal is a clean 400; here it would log a traceback."""


async def _picker_of(spawner: LocalSpawner) -> str:
    computer = await asyncio.to_thread(this_computer)
    try:
        catalog = spawner.catalog()
    except AtelierError as problem:
        return picker([], [], problem=problem.message)
    choice = (catalog, spawner.user_options or spawner.orm_spawner.user_options or {}, spawner.groups, computer)
    return picker(image_cards(*choice), machine_cards(*choice))
