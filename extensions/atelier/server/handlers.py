"""Handlers of what the extension does itself, submit and copy back; ends with the table of all addresses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tornado import web

from atelier.errors import RefusedInput, Unavailable
from atelier.server.base import AtelierHandler
from atelier.server.copies import CopyOrder, copy_back
from atelier.server.folders import path_below
from atelier.server.home_root import HomeHandler, RootsHandler
from atelier.server.pages import EventsSocket
from atelier.server.passed import ServiceHandler
from atelier.server.questions import Questions
from atelier.server.written import read_sources, submit_written

SUBMIT_OPTIONS: dict[str, type] = {"params": dict, "image": str, "machine": str, "retries": int, "name": str}


class LocalHandler(AtelierHandler):
    """An endpoint that reads or writes below the server's root folder."""

    @property
    def root(self) -> Path:
        """The folder that the file browser shows; Unavailable when its files are not on this computer."""
        root = getattr(self.contents_manager, "root_dir", "")
        if not root:
            raise Unavailable(
                "no_local_files", "This server's files are not on its own disk.", hint="Download instead."
            )
        return Path(root)


class SubmitHandler(LocalHandler):
    """``POST {"path": …, "params"?, "image"?, "machine"?, "retries"?, "name"?, "sources"?}`` → 201 the new run.

    With ``sources``, the texts of all cells, it waits until the file has them.
    """

    @web.authenticated
    async def post(self) -> None:
        body = self.json_object()
        sources = read_sources(body.pop("sources", None))
        options = {name: value for name, value in body.items() if name != "path" and value is not None}
        unknown = sorted(options.keys() - SUBMIT_OPTIONS.keys())
        if unknown:
            raise RefusedInput(
                "unknown_option", f"Unknown: {', '.join(unknown)}.", hint=f"Known: {', '.join(sorted(SUBMIT_OPTIONS))}."
            )
        wrong = sorted(name for name, value in options.items() if type(value) is not SUBMIT_OPTIONS[name])
        if wrong:
            raise RefusedInput("bad_option", f"Not as it must be: {', '.join(wrong)}.", hint="Reload the page.")
        work = path_below(self.root, body.get("path"))
        run_id = await submit_written(work, sources, submit=lambda: _submit(work, options))
        self.feed.wake()
        self.answer(await self.link.json("GET", f"/runs/{run_id}"), status=201)


class CopyHandler(LocalHandler):
    """``POST {"run", "artifact" | null, "beside"?, "name"?, "replace"?}`` → 201 ``{"path", "size_bytes"}``."""

    @web.authenticated
    async def post(self) -> None:
        order = CopyOrder.read(self.json_object())
        self.answer(await copy_back(self.link, order, self.root), status=201)


class AnswerHandler(AtelierHandler):
    """``POST {"value": text}`` → 204: the answer to a question of a running cell."""

    @web.authenticated
    def post(self, name: str) -> None:
        value = self.json_object().get("value")
        if not isinstance(value, str):
            raise RefusedInput("bad_answer", "The answer is no text.", hint='Send {"value": "…"}.')
        questions: Questions = self.settings["atelier_questions"]
        questions.answer(name, value)
        self.set_status(204)
        self.finish()


class NoSuchHandler(AtelierHandler):
    """Everything else below ``atelier/``: 404 for who may call, 403 for others."""

    @web.authenticated
    def get(self, *_args: Any) -> None:
        raise web.HTTPError(404)

    head = post = put = patch = delete = get


def _submit(work: Path, options: dict[str, Any]) -> str:
    import atelier

    return str(atelier.submit(str(work), **options).id)


HANDLERS: list[tuple[str, type[web.RequestHandler]]] = [
    (r"/atelier/events", EventsSocket),
    (r"/atelier/submit", SubmitHandler),
    (r"/atelier/copy-back", CopyHandler),
    (r"/atelier/questions/([\w-]+)", AnswerHandler),
    (r"/atelier/api/v1/roots", RootsHandler),
    (r"/atelier/api/v1/roots/home/(list|preview|file)", HomeHandler),
    (r"/atelier/api/v1/(.*)", ServiceHandler),
    (r"/atelier/(.*)", NoSuchHandler),
]
