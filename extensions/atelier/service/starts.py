"""When agents may be started: not while the computer lacks what each of them needs, and then less and less often."""

from __future__ import annotations

import errno
import time

from atelier.service.backends import Key

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
IMAGE_PAUSE_S = 3.0

_PASSING = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EDQUOT})


_TO_DO = {
    errno.EAGAIN: "End processes that are not needed, or have the account's limit raised.",
    errno.ENOMEM: "End what uses the computer's memory.",
    errno.EMFILE: "Have the limit of open files raised.",
    errno.ENFILE: "Have the limit of open files raised.",
    errno.ENOSPC: "Make room on the platform's disk: 'atelier rm' removes ended runs, 'atelier doctor' tells more.",
    errno.EDQUOT: "Make room within the disk quota: 'atelier rm' removes ended runs.",
}


def is_passing(problem: OSError) -> bool:
    """Whether a start failed for what may be there again: processes, memory, files, room on the disk."""
    return problem.errno in _PASSING


def told(problem: OSError) -> tuple[str, str]:
    """What users of a run whose start is put off are told: why it waits, and what to do."""
    why = f"The computer can't start it now: {problem.strerror}. It is tried again by itself."
    return why, _TO_DO.get(problem.errno or 0, "Run 'atelier doctor'.")


def told_of_image(name: str) -> tuple[str, str]:
    """What users of a run are told whose image isn't here: why it waits, and what to do."""
    why = f"The image {name!r} is not built on this computer. The run starts by itself once it is."
    return why, f"Run 'make env IMAGES={name}' in the platform's checkout."


class Starts:
    """Pauses after starts that failed for a passing reason; such a start counts for none.

    What lacks its image pauses alone.
    """

    def __init__(self) -> None:
        self._due_at = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._put_off: set[Key] = set()
        self._look_again_at: dict[Key, float] = {}

    @property
    def are_due(self) -> bool:
        """Whether one may be tried now."""
        return time.monotonic() >= self._due_at

    def is_due(self, key: Key) -> bool:
        """Whether this one may be tried now."""
        return self.are_due and time.monotonic() >= self._look_again_at.get(key, 0.0)

    def lacks_image(self, key: Key) -> None:
        """One's image is not here: it alone waits for a while."""
        self._put_off.add(key)
        self._look_again_at[key] = time.monotonic() + IMAGE_PAUSE_S

    def put_off(self, key: Key) -> None:
        """One failed for a passing reason: all wait, twice as long as the last time."""
        self._put_off.add(key)
        self._due_at = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)

    def went_on(self, key: Key) -> None:
        """One began, or failed for good: the next may be tried at once."""
        self._put_off.discard(key)
        self._look_again_at.pop(key, None)
        self._due_at, self._pause_s = 0.0, FIRST_PAUSE_S

    def is_put_off(self, key: Key) -> bool:
        """Whether an attempt's last start failed for a passing reason."""
        return key in self._put_off
