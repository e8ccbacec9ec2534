"""The contract of a backend: it starts attempts, tells whether they live, and ends them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from atelier.service.store import Capacity


class Key(NamedTuple):
    """One attempt: its run and its number."""

    run_id: str
    n: int


@dataclass(frozen=True)
class Launch:
    """All that a backend needs to start an attempt's agent. ``devices`` are those that it holds, by resource."""

    key: Key
    owner: str
    token: str
    devices: Mapping[str, Collection[str]] = field(default_factory=dict)


class Sign(StrEnum):
    """What a backend sees of an attempt."""

    ALIVE = "alive"
    """Its agent lives, or is about to."""
    GONE = "gone"
    """Its agent has died; what it left can be brought in by `Backend.recover`."""
    ABSENT = "absent"
    """No agent of it has ever begun here: it may be started, again if need be."""


class Backend(ABC):
    """Runs agents. Every method may be called again with the same arguments, and after a restart of the service.

    The agent itself reports to the service; a backend never does. A backend keeps no state that it couldn't find again.
    """

    name: str
    most_nodes: int = 1

    @abstractmethod
    def capacity(self) -> Capacity:
        """What there is to give away now."""

    @abstractmethod
    async def start(self, launch: Launch) -> None:
        """Start the attempt's agent; nothing happens when it was started before and lives."""

    @abstractmethod
    async def observe(self, keys: Collection[Key]) -> dict[Key, Sign]:
        """A sign of each attempt, in one look at all of them."""

    @abstractmethod
    async def recover(self, key: Key) -> None:
        """Bring in what a dead agent left (log, metrics, artifacts, result) and report its end to the service."""

    @abstractmethod
    async def kill(self, key: Key) -> None:
        """End all processes of the attempt at once."""

    @abstractmethod
    async def clean(self, key: Key) -> None:
        """Remove what the attempt left on the machine; the service has stored what is kept."""

    @abstractmethod
    async def result(self, key: Key) -> bytes | None:
        """What the attempt's agent wrote of its end before it told the service; None when it wrote nothing.

        Also after `set_aside`. The code of the run may have changed it.
        """

    @abstractmethod
    async def set_aside(self, key: Key) -> str | None:
        """Keep what the attempt left from being cleaned; a user's words for the place, None when there is nothing.

        Done again, it says the same. The attempt itself is absent afterwards.
        """

    @abstractmethod
    async def clear_aside(self, age_s: float, is_known: Callable[[str], bool]) -> None:
        """Remove what was set aside longer ago than this, and that of runs which are not known any more."""

    @abstractmethod
    async def leftovers(self) -> list[Key]:
        """Attempts of which something is still here, whether they live or not."""
