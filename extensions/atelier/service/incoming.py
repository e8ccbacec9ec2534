"""What agents send, before it is taken: each attempt has a folder of its own for it, which goes when the attempt ends.

A URL that an agent was given leads there and nowhere else. So what it still writes after its attempt has ended, or was
replaced, changes nothing of the run: on a disk the folder is not there any more, in an object store nobody takes it.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from typing import BinaryIO

from atelier.crash_points import crash_point
from atelier.errors import RefusedInput
from atelier.storage import BlobStore, RunPaths

_TRIES = 5


@dataclass(frozen=True)
class Incoming:
    """Takes files from where an attempt has sent them to where they stay."""

    blobs: BlobStore

    def url(self, run_id: str, n: int, key: str) -> str:
        """Where an attempt sends what is to lie at a key."""
        return self.blobs.write_url(_sent(run_id, n, key))

    def take(self, run_id: str, n: int, key: str, *, size_bytes: int, sha256: str) -> None:
        """Put what an attempt has sent where it is to lie, once it was read; `done` then lets the sent copy go.

        What was taken before an answer was lost is taken already, and so is what an agent of an older Atelier has put
        there itself.

        Raises
        ------
        RefusedInput
            ``torn_upload``: it is not there whole, or is something else.
        """
        sent = _sent(run_id, n, key)
        if self._has(sent, size_bytes):
            if self.sha256(sent) != sha256:
                self.blobs.delete(sent)
                raise RefusedInput("torn_upload", "A file changed while it was sent.", hint="Send it again.")
            self.blobs.copy(sent, key)
            crash_point("service.take.copied")
        elif not self._has(key, size_bytes) or self.sha256(key) != sha256:
            raise RefusedInput("torn_upload", "A file was not stored whole.", hint="Send it again.")

    def take_named(self, run_id: str, n: int, key: str, *, size_bytes: int, sha256: str) -> None:
        """The same for a key that names its content: what lies there was read before it came there."""
        if not self._has(key, size_bytes):
            self.take(run_id, n, key, size_bytes=size_bytes, sha256=sha256)

    def has(self, run_id: str, n: int, key: str) -> bool:
        """Whether an attempt has sent something for a key that was not taken yet."""
        return self.blobs.exists(_sent(run_id, n, key))

    def done(self, run_id: str, n: int, key: str) -> None:
        """Let the sent copy of what was taken go."""
        self.blobs.delete(_sent(run_id, n, key))
        crash_point("service.take.done")

    def close(self, run_id: str, n: int) -> None:
        """Let all go that an attempt has sent and nobody took; what it sends from now on leads nowhere."""
        for _ in range(_TRIES):
            with contextlib.suppress(OSError):  # it begins another file at this moment
                self.blobs.delete(RunPaths(run_id).incoming(n))
                crash_point("service.take.closed")
                return

    def sha256(self, key: str) -> str:
        """The sha256 of what lies at a key."""
        with self.blobs.open(key) as stream:
            return _digest(stream)

    def _has(self, key: str, size_bytes: int) -> bool:
        return self.blobs.exists(key) and self.blobs.size_bytes(key) == size_bytes


def _digest(stream: BinaryIO) -> str:
    digest = hashlib.sha256()
    while part := stream.read(1 << 20):
        digest.update(part)
    return digest.hexdigest()


def _sent(run_id: str, n: int, key: str) -> str:
    """A name of its own for each key, without folders: what is sent bars nothing else that is."""
    return f"{RunPaths(run_id).incoming(n)}/{hashlib.sha256(key.encode(errors='surrogateescape')).hexdigest()[:32]}"
