"""What a running cell asks, by ``input()``, ``getpass()`` or a debugger, stands in its outputs until it is answered.

jupyter-server-documents 0.3.3 runs cells with ``allow_stdin=False``, so that each question is an error. Here it becomes
an output that the labextension draws as a field; any page that shows the notebook may answer, also after a reload.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from atelier.errors import NotFound

INPUT_TYPE = "application/vnd.atelier.input+json"
SETTLE_S = 0.15
"""What was printed before comes over another socket: it is written first."""
HIDDEN = "········"

Hook = Callable[[dict[str, Any]], None]


class Questions:
    """The questions of a server that wait for an answer."""

    def __init__(self) -> None:
        self._open: dict[str, Callable[[str], None]] = {}

    def open(self, take: Callable[[str], None]) -> str:
        """Wait for an answer, which ``take`` gets; the question's id, which nobody can guess."""
        name = secrets.token_urlsafe(16)
        self._open[name] = take
        return name

    def answer(self, name: str, value: str) -> None:
        """Give an answer, once.

        Raises
        ------
        NotFound
            ``unknown_question``: it was answered, or its cell has ended.
        """
        take = self._open.pop(name, None)
        if take is None:
            hint = "It was answered already, or its cell has ended. Run the cell again to be asked again."
            raise NotFound("unknown_question", "Nobody waits for this answer any more.", hint=hint)
        take(value)

    def close(self, name: str) -> bool:
        """Wait no more; whether it still did."""
        return self._open.pop(name, None) is not None


class AskingClient:
    """A kernel's client whose cells may ask; all else is the client's own.

    Parameters
    ----------
    client : AsyncKernelClient
        One with a session of its own: the kernel asks whoever sent the cell.
    questions : Questions
        Where answers come from.
    """

    def __init__(self, client: Any, questions: Questions) -> None:
        self._client = client
        self._questions = questions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def _async_execute_interactive(self, code: str, *, output_hook: Hook, **options: Any) -> Any:
        asked = _Asked(self._client, self._questions, output_hook)
        try:
            return await self._client._async_execute_interactive(
                code, output_hook=output_hook, **options | {"allow_stdin": True, "stdin_hook": asked.ask}
            )
        finally:
            asked.end()


class _Asked:
    """The questions of one cell."""

    def __init__(self, client: Any, questions: Questions, write: Hook) -> None:
        self._client, self._questions, self._write = client, questions, write
        self._waiting: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def ask(self, message: Mapping[str, Any]) -> None:
        """Never waits: the cell's outputs, and its end by an interrupt, are read meanwhile."""
        task = asyncio.create_task(self._show(message["content"]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _show(self, content: Mapping[str, Any]) -> None:
        await asyncio.sleep(SETTLE_S)
        prompt, is_hidden = str(content.get("prompt", "")), bool(content.get("password"))
        name = self._questions.open(lambda value: self._take(name, value, is_hidden=is_hidden))
        self._waiting[name] = prompt
        asked = {"id": name, "prompt": prompt, "password": is_hidden}
        self._output("display_data", name, {INPUT_TYPE: asked, "text/plain": prompt})

    def _take(self, name: str, value: str, *, is_hidden: bool) -> None:
        prompt = self._waiting.pop(name)
        self._client.input(value)
        self._output("update_display_data", name, {"text/plain": prompt + (HIDDEN if is_hidden else value)})

    def end(self) -> None:
        """The cell has ended: what was not answered stays as the words that it was asked in."""
        for task in self._tasks:
            task.cancel()
        for name, prompt in self._waiting.items():
            self._questions.close(name)
            self._output("update_display_data", name, {"text/plain": prompt})

    def _output(self, kind: str, name: str, data: dict[str, Any]) -> None:
        content = {"data": data, "metadata": {}, "transient": {"display_id": name}}
        self._write({"header": {"msg_type": kind}, "content": content})
