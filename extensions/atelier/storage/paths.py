"""The one class that knows where everything of a run lies in the blob store."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from atelier.errors import RefusedInput
from atelier.naming import path_fault


@dataclass(frozen=True)
class RunPaths:
    """Keys of one run, the same on a disk and in an object store (``runs/<id>/…``)."""

    run_id: str

    @property
    def root(self) -> str:
        return f"runs/{self.run_id}"

    @property
    def record(self) -> str:
        return f"{self.root}/run.json"

    @property
    def bundle(self) -> str:
        return f"{self.root}/bundle.tar.zst"

    @property
    def lock(self) -> str:
        """The packages that the run had, ``name==version`` a line."""
        return f"{self.root}/lock.txt"

    @property
    def notebook(self) -> str:
        return f"{self.root}/notebook.ipynb"

    def attempt(self, n: int) -> str:
        return f"{self.root}/attempts/{n}"

    def incoming(self, n: int) -> str:
        """Where an attempt sends files to, until the service takes them to where they stay."""
        return f"{self.attempt(n)}/incoming"

    def chunk(self, n: int, stream: str, offset: int) -> str:
        """A piece of a stream (``log`` or ``metrics``) that begins at a byte offset; names sort as numbers do."""
        return f"{self.attempt(n)}/{stream}/{offset:015d}"

    def chunks(self, n: int, stream: str) -> str:
        return f"{self.attempt(n)}/{stream}"

    def whole(self, n: int, stream: str) -> str:
        """The composed stream of an ended attempt: ``log.txt`` or ``metrics.jsonl``."""
        return f"{self.attempt(n)}/{'log.txt' if stream == 'log' else 'metrics.jsonl'}"

    def result(self, n: int) -> str:
        return f"{self.attempt(n)}/result.json"

    def artifact(self, n: int, path: str, *, sha256: str) -> str:
        """Below an attempt's own folder, and by content: what is left anew tears nothing that was left before."""
        return f"{self.content(n, sha256)}/{checked_path(path)}"

    def artifacts(self, n: int) -> str:
        return f"{self.root}/artifacts/{n}"

    def content(self, n: int, sha256: str) -> str:
        """Where all artifacts of an attempt lie that have one content."""
        return f"{self.artifacts(n)}/{sha256}"

    @property
    def checkpoints(self) -> str:
        """The folders of all publications, each of which begins with the number of its attempt."""
        return f"{self.root}/checkpoints"

    def checkpoint(self, n: int, step: int, *, copy: int) -> str:
        """A publication's own folder: a later one that is cut off at the same step can't tear what this one holds."""
        return f"{self.checkpoints}/{n}-step-{step:010d}{'' if copy == 1 else f'-{copy}'}"


def owner_key(owner: str) -> str:
    """A folder name for an owner: never the name itself, so no name can escape or collide."""
    return hashlib.sha256(owner.encode()).hexdigest()[:24]


UPLOADS = "uploads"


def upload_key(owner: str, sha256: str) -> str:
    """An upload of one owner, by content: others can't see whether it exists."""
    return f"{UPLOADS}/{owner_key(owner)}/{sha256}"


def model_key(owner: str, name: str, version: int) -> str:
    """The folder of one model version; ``name`` is already checked to be a plain name."""
    return f"models/{owner_key(owner)}/{name}/{version}"


def checked_path(path: str) -> str:
    """A relative POSIX path from outside, when it names a place below its root.

    Raises
    ------
    RefusedInput
        ``bad_path``: absolute, with ``..``, empty or ``.`` parts, a control character, a backslash, or too long.
    """
    if path_fault(path):
        raise RefusedInput(
            "bad_path", f"{path[:200]!r} is not a path below its root.", hint="Give a relative path without '..'."
        )
    return path
