"""The data root ``home``, answered here: the files lie on the user server, not at the run service."""

from __future__ import annotations

import asyncio
from pathlib import PurePosixPath
from typing import Any, NoReturn
from urllib.parse import parse_qs, quote

from tornado import web
from tornado.iostream import StreamClosedError

from atelier.data.sources import Source
from atelier.errors import AtelierError, RefusedInput
from atelier.server.base import AtelierHandler

HOME = {"name": "home", "title": "Home", "writable": True}
PART_BYTES = 2**20


class RootsHandler(AtelierHandler):
    """``GET roots``: home, and the service's roots when it answers."""

    @web.authenticated
    async def get(self) -> None:
        try:
            told = await self.link.json("GET", "/roots")
        except AtelierError as problem:
            self.log.info("Only the root home is listed: %s", problem.message)
            told = {"items": [], "next": None, "problem": problem.message}
        others = [root for root in told["items"] if root.get("name") != HOME["name"]]
        self.answer({**told, "items": [HOME, *others]})


class HomeHandler(AtelierHandler):
    """``GET roots/home/list | preview | file``: the JSON that the service gives of its own roots."""

    @web.authenticated
    async def get(self, what: str) -> None:
        if what == "list":
            self.answer(
                await asyncio.to_thread(_list, self._text("path"), self._whole("limit", 200), self._text("page"))
            )
        elif what == "preview":
            self.answer(await asyncio.to_thread(_preview, self._text("path"), self._preview_options()))
        else:
            await self._send_file(self._text("path"))

    def _preview_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {
            "rows": self._whole("rows", 50),
            "plan_only": self._text("plan_only") in {"1", "true", "True"},
        }
        if columns := self._query.get("columns"):
            options["columns"] = columns
        if self._text("budget_bytes"):
            options["budget_bytes"] = self._whole("budget_bytes", 0)
        return options

    async def _send_file(self, path: str) -> None:
        source = await asyncio.to_thread(_open, path)
        try:
            name = quote(PurePosixPath(path).name, safe="")
            self.set_header("Content-Disposition", f"attachment; filename*=UTF-8''{name}")
            self.set_header("Content-Type", "application/octet-stream")
            self.set_header("Content-Length", str(source.size_bytes))
            offset = 0
            while data := await asyncio.to_thread(source.read, offset, PART_BYTES):
                offset += len(data)
                self.write(data)
                await self.flush()
        except StreamClosedError:
            return  # the page went away
        finally:
            source.close()
        self.finish(set_content_type="application/octet-stream")

    @property
    def _query(self) -> dict[str, list[str]]:
        """The query as it was sent; tornado's own reading turns control characters into spaces."""
        return parse_qs(self.request.query, keep_blank_values=True)

    def _text(self, name: str) -> str:
        return self._query.get(name, [""])[-1]

    def _whole(self, name: str, default: int) -> int:
        text = self._text(name)
        if not text:
            return default
        if not text.isdecimal() or len(text) > 15:
            _refuse_number(name, text)
        return int(text)


def _list(path: str, limit: int, page: str) -> dict[str, Any]:
    from atelier.data.roots import home_root, list_folder

    return list_folder(home_root(), path, limit=limit, page=page or None)


def _preview(path: str, options: dict[str, Any]) -> dict[str, Any]:
    from atelier.data import previews
    from atelier.data.roots import home_root

    look = previews.plan if options.pop("plan_only") else previews.preview
    return look(home_root(), path, **options)


def _open(path: str) -> Source:
    from atelier.data.roots import home_root

    return home_root().open(path)


def _refuse_number(name: str, text: str) -> NoReturn:
    raise RefusedInput(
        "bad_number", f"{name} must be a whole number, not {text[:40]!r}.", hint="Leave it out for the default."
    )
