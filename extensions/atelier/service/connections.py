"""Connections that end when their other side takes no more of what is sent to it."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

STALLED_S = 120.0


class ImpatientConnection(H11Protocol):
    """Ends a connection whose buffers stay full for `STALLED_S`.

    What sends waits in them for ever otherwise, with all that it holds: a watcher of events or a file that is read. A
    client that comes back asks for what it lacks.
    """

    _ending: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._ending = self._ending or self.loop.call_later(STALLED_S, self.transport.abort)

    def resume_writing(self) -> None:
        self._forgive()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forgive()
        super().connection_lost(exc)

    def _forgive(self) -> None:
        if self._ending is not None:
            self._ending.cancel()
        self._ending = None
