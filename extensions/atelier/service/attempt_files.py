"""Files that agents send: artifacts, checkpoints, model packages; each is taken from a live attempt only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from atelier.crash_points import crash_point
from atelier.errors import RefusedInput
from atelier.quantities import format_bytes, utcnow
from atelier.records import MOST_FILE_BYTES, Artifact, ModelFile, ModelVersion, Run, Whole
from atelier.service.boundary import FromAgent
from atelier.service.feed import Event, Feed
from atelier.service.fence import Fence
from atelier.service.housekeeping import is_uploaded
from atelier.service.incoming import Incoming
from atelier.service.models import ModelManager
from atelier.service.store import Store
from atelier.service.store.lifecycle import stale_attempt
from atelier.service.store.streams import STREAMS
from atelier.service.streams import Streams
from atelier.settings import Catalog, Limits
from atelier.storage import BlobStore, RunPaths
from atelier.storage.paths import checked_path, upload_key


@dataclass(frozen=True)
class AgentCaller:
    """The attempt that a run token belongs to; ``cpu`` and ``memory_bytes`` are what it was promised."""

    run_id: str
    n: int
    owner: str
    project: str
    cpu: float
    memory_bytes: int


class FileReport(FromAgent):
    """A file that an agent has or wants to store."""

    path: str = Field(min_length=1, max_length=1024)
    size_bytes: Whole = Field(ge=0, le=MOST_FILE_BYTES)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    kind: Literal["saved", "written", "notebook"] = "written"


def artifact_key(run_id: str, n: int, file: FileReport | Artifact) -> str:
    """Where the bytes of an attempt's artifact lie: those of another content lie elsewhere."""
    return RunPaths(run_id).artifact(n, file.path, sha256=file.sha256)


@dataclass
class AttemptFiles:
    """Takes files of attempts. Each is sent to the attempt's own folder first, and then put where it stays.

    All of it is fenced: an attempt that has ended or was replaced is refused (``stale_attempt``), and none ends while
    something of it is being put in its place. ``offers`` gives the catalog of now.
    """

    store: Store
    blobs: BlobStore
    offers: Callable[[], Catalog]
    limits: Limits
    streams: Streams
    models: ModelManager
    feed: Feed
    _fence: Fence = field(default_factory=Fence, init=False)
    _incoming: Incoming = field(init=False)

    def __post_init__(self) -> None:
        self._incoming = Incoming(self.blobs)

    @contextlib.contextmanager
    def _writing(self, agent: AgentCaller) -> Iterator[None]:
        """Write for an attempt that lives, and that does not end meanwhile."""
        with self._fence.hold(agent.run_id):
            self.store.runs.check_live(agent.run_id, agent.n)
            yield

    def _live(self, agent: AgentCaller) -> Run:
        run = self.store.runs.get(agent.run_id)
        if run.state.is_final or not run.attempts or run.attempts[-1].n != agent.n or run.attempts[-1].state.is_final:
            raise stale_attempt(agent.run_id, agent.n)
        return run

    def clear(self, run_id: str, n: int) -> None:
        """Remove what lies where an attempt is to write that has not begun: its store knows nothing of it.

        Another store had the same run and went further, before this one was restored from a backup, say.
        """
        with self._fence.hold(run_id):
            if not self.store.runs.is_live(run_id, n) or self._has_told(run_id, n):
                return
            paths = RunPaths(run_id)
            folders = [name for name in self.blobs.names(paths.checkpoints) if name.partition("-")[0] == str(n)]
            for prefix in (paths.attempt(n), paths.artifacts(n), *(f"{paths.checkpoints}/{name}" for name in folders)):
                self.blobs.delete(prefix)
            self.streams.forget(run_id, n)

    def _has_told(self, run_id: str, n: int) -> bool:
        sizes = [self.store.streams.size(run_id, n, stream) for stream in STREAMS]
        return any(sizes) or self.store.artifacts.has_any(run_id, n)

    def place(self, agent: AgentCaller, file: FileReport) -> str:
        """Where an artifact's bytes go.

        Raises
        ------
        RefusedInput
            ``too_large``: the run's artifacts would be more than one run may keep. ``path_taken``: the attempt has left
            a file where the path has a folder, or files below the path.
        """
        with self._writing(agent):
            self._check(agent, file)
            return self._incoming.url(agent.run_id, agent.n, artifact_key(agent.run_id, agent.n, file))

    def _check(self, agent: AgentCaller, file: FileReport) -> None:
        kept = self.store.artifacts.total_bytes(agent.run_id, besides=file.path)
        if kept + file.size_bytes > self.limits.artifact_size:
            size, most = format_bytes(file.size_bytes), format_bytes(self.limits.artifact_size)
            left = format_bytes(max(0, self.limits.artifact_size - kept))
            raise RefusedInput(
                "too_large",
                f"{file.path} has {size}; of the {most} that a run may leave {left} are left.",
                hint="Write less, or ask the administrator to raise limits.artifact_size.",
            )
        if file.kind != "notebook":
            self.store.artifacts.check_place(agent.run_id, agent.n, file.path)

    def keep(self, agent: AgentCaller, file: FileReport) -> Artifact:
        """Note an artifact whose bytes are stored; refuses as `place` does, which may have been told another size.

        The bytes of the one before stay until the row tells of the new ones.
        """
        key = artifact_key(agent.run_id, agent.n, file)
        artifact = Artifact.model_validate(file.model_dump() | {"attempt": agent.n, "created_at": utcnow()})
        with self._writing(agent):
            self._check(agent, file)
            with _of(file.path):
                self._incoming.take_named(agent.run_id, agent.n, key, size_bytes=file.size_bytes, sha256=file.sha256)
            if file.kind == "notebook":  # which is the run's, too, as it is now
                self.blobs.copy(key, RunPaths(agent.run_id).notebook)
            crash_point("service.artifact.before")
            spent = self.store.artifacts.add(agent.run_id, artifact)
            crash_point("service.artifact.rows")
            for old in spent:
                self._drop(agent.run_id, old)
            self._incoming.done(agent.run_id, agent.n, key)
        crash_point("service.artifact.after")
        event = Event("artifact", {"run": agent.run_id, "artifact": artifact.model_dump(mode="json")})
        self.feed.publish(agent.owner, agent.run_id, event)
        self.feed.touch(agent.owner)
        return artifact

    def _drop(self, run_id: str, old: Artifact) -> None:
        """Let the bytes of an artifact go that is the run's no more, and with the last of a content its folder."""
        has_others = self.store.artifacts.has_content(run_id, old.attempt, old.sha256)
        folder = RunPaths(run_id).content(old.attempt, old.sha256)
        self.blobs.delete(artifact_key(run_id, old.attempt, old) if has_others else folder)

    def place_checkpoint(self, agent: AgentCaller, step: int, path: str, *, copy: int, size_bytes: int = 0) -> str:
        """Where a checkpoint's file goes; ``copy`` counts what the attempt has published at that step.

        Raises
        ------
        RefusedInput
            ``too_large``: the whole checkpoint, of ``size_bytes``, is more than one may have.
        """
        self._check_checkpoint(step, size_bytes)
        folder = RunPaths(agent.run_id).checkpoint(agent.n, step, copy=copy)
        with self._writing(agent):
            return self._incoming.url(agent.run_id, agent.n, f"{folder}/{checked_path(path)}")

    def _check_checkpoint(self, step: int, size_bytes: int) -> None:
        if size_bytes > self.limits.checkpoint_size:
            size, most = format_bytes(size_bytes), format_bytes(self.limits.checkpoint_size)
            raise RefusedInput(
                "too_large",
                f"The checkpoint of step {step} has {size}; one may have {most}.",
                hint="Save less in it, or ask the administrator to raise limits.checkpoint_size.",
            )

    def keep_checkpoint(self, agent: AgentCaller, step: int, files: Sequence[FileReport], *, copy: int) -> None:
        """Publish a checkpoint whose files are all stored; the files of older ones that are kept no more go.

        One that is published already stays as it is. Refuses as `place_checkpoint` does.
        """
        self._check_checkpoint(step, sum(file.size_bytes for file in files))
        paths = RunPaths(agent.run_id)
        folder = paths.checkpoint(agent.n, step, copy=copy)
        keys = {f"{folder}/{checked_path(file.path)}": file for file in files}
        listing = [file.model_dump(include={"path", "size_bytes", "sha256"}) for file in files]
        with self._writing(agent):
            for key, file in keys.items() if not self._is_published(agent, step, listing, copy=copy) else ():
                with _of(file.path):
                    self._incoming.take(agent.run_id, agent.n, key, size_bytes=file.size_bytes, sha256=file.sha256)
            crash_point("service.checkpoint.before")
            spent = self.store.artifacts.add_checkpoint(agent.run_id, agent.n, step, listing, copy=copy)
            crash_point("service.checkpoint.rows")
            for old in spent:
                self.blobs.delete(paths.checkpoint(old.attempt, old.step, copy=old.copy))
            for key in keys:
                self._incoming.done(agent.run_id, agent.n, key)
        crash_point("service.checkpoint.after")

    def _is_published(self, agent: AgentCaller, step: int, listing: list[dict[str, Any]], *, copy: int) -> bool:
        """Whether its answer was lost: large files take longer to read than an agent waits, and are read once."""
        told = (agent.n, step, copy, listing)
        known = self.store.artifacts.checkpoints(agent.run_id)
        return any((one.attempt, one.step, one.copy, one.files) == told for one in known)

    def place_upload(self, agent: AgentCaller, file: ModelFile) -> str | None:
        """Where a file of a model package goes; None when its content is there already."""
        key = upload_key(agent.owner, file.sha256)
        with self._writing(agent):
            self.models.check_size(file.size_bytes, made_bytes=0)
            return None if is_uploaded(self.blobs, key) else self._incoming.url(agent.run_id, agent.n, key)

    def publish(self, agent: AgentCaller, name: str, card: dict[str, Any], files: list[ModelFile]) -> ModelVersion:
        """Register a model that the run has made, from files that it has sent, or that its owner had uploaded before.

        Raises
        ------
        RefusedInput
            ``torn_upload``: a file is not what its name in the listing says. As `ModelManager.publish` besides.
        """
        with self._writing(agent):
            for file in files:
                key = upload_key(agent.owner, file.sha256)
                if self._incoming.has(agent.run_id, agent.n, key):
                    self._incoming.take(agent.run_id, agent.n, key, size_bytes=file.size_bytes, sha256=file.sha256)
                    self._incoming.done(agent.run_id, agent.n, key)
            return self.models.publish(
                owner=agent.owner, project=agent.project, name=name, run_id=agent.run_id, card=card, files=files
            )


@contextlib.contextmanager
def _of(path: str) -> Iterator[None]:
    """Say which file was not stored."""
    try:
        yield
    except RefusedInput as problem:
        raise RefusedInput(problem.code, f"{path} was not stored whole.", hint=problem.hint) from problem
