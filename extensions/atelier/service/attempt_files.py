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
    """Where the bytes of an attempt's artifact lie; the executed notebook is the run's, as it is now."""
    paths = RunPaths(run_id)
    return paths.notebook if file.kind == "notebook" else paths.artifact(n, file.path)


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

    def place(self, agent: AgentCaller, file: FileReport) -> str:
        """Where an artifact's bytes go.

        Raises
        ------
        RefusedInput
            ``too_large``: the run's artifacts would be more than one run may keep. ``path_taken``: the attempt has left
            a file where the path has a folder, or files below the path.
        """
        with self._writing(agent):
            self._check_size(agent.run_id, file)
            if file.kind != "notebook":
                self.store.artifacts.check_place(agent.run_id, agent.n, file.path)
            return self._incoming.url(agent.run_id, agent.n, artifact_key(agent.run_id, agent.n, file))

    def _check_size(self, run_id: str, file: FileReport) -> None:
        kept = self.store.artifacts.total_bytes(run_id, besides=file.path)
        if kept + file.size_bytes > self.limits.artifact_size:
            size, most = format_bytes(file.size_bytes), format_bytes(self.limits.artifact_size)
            left = format_bytes(max(0, self.limits.artifact_size - kept))
            raise RefusedInput(
                "too_large",
                f"{file.path} has {size}; of the {most} that a run may leave {left} are left.",
                hint="Write less, or ask the administrator to raise limits.artifact_size.",
            )

    def keep(self, agent: AgentCaller, file: FileReport) -> Artifact:
        """Note an artifact whose bytes are stored; refuses as `place` does, which may have been told another size."""
        key = artifact_key(agent.run_id, agent.n, file)
        artifact = Artifact.model_validate(file.model_dump() | {"attempt": agent.n, "created_at": utcnow()})
        with self._writing(agent):
            self._check_size(agent.run_id, file)
            self._take(agent, key, file)
            crash_point("service.artifact.before")
            spent = self.store.artifacts.add(agent.run_id, artifact)
            crash_point("service.artifact.rows")
            for old in spent:
                self.blobs.delete(artifact_key(agent.run_id, old.attempt, old))
            self._incoming.done(agent.run_id, agent.n, key)
        crash_point("service.artifact.after")
        event = Event("artifact", {"run": agent.run_id, "artifact": artifact.model_dump(mode="json")})
        self.feed.publish(agent.owner, agent.run_id, event)
        self.feed.touch(agent.owner)
        return artifact

    def place_checkpoint(self, agent: AgentCaller, step: int, path: str, *, copy: int) -> str:
        """Where a checkpoint's file goes; ``copy`` counts what the attempt has published at that step."""
        folder = RunPaths(agent.run_id).checkpoint(agent.n, step, copy=copy)
        with self._writing(agent):
            return self._incoming.url(agent.run_id, agent.n, f"{folder}/{checked_path(path)}")

    def keep_checkpoint(self, agent: AgentCaller, step: int, files: Sequence[FileReport], *, copy: int) -> None:
        """Publish a checkpoint whose files are all stored; the files of older ones that are kept no more go."""
        paths = RunPaths(agent.run_id)
        folder = paths.checkpoint(agent.n, step, copy=copy)
        keys = {f"{folder}/{checked_path(file.path)}": file for file in files}
        listing = [file.model_dump(include={"path", "size_bytes", "sha256"}) for file in files]
        with self._writing(agent):
            for key, file in keys.items():
                self._take(agent, key, file)
            crash_point("service.checkpoint.before")
            spent = self.store.artifacts.add_checkpoint(agent.run_id, agent.n, step, listing, copy=copy)
            crash_point("service.checkpoint.rows")
            for old in spent:
                self.blobs.delete(paths.checkpoint(old.attempt, old.step, copy=old.copy))
            for key in keys:
                self._incoming.done(agent.run_id, agent.n, key)
        crash_point("service.checkpoint.after")

    def _take(self, agent: AgentCaller, key: str, file: FileReport) -> None:
        try:
            self._incoming.take(agent.run_id, agent.n, key, size_bytes=file.size_bytes, sha256=file.sha256)
        except RefusedInput as problem:
            raise RefusedInput(problem.code, f"{file.path} was not stored whole.", hint=problem.hint) from problem

    def place_upload(self, agent: AgentCaller, file: ModelFile) -> str | None:
        """Where a file of a model package goes; None when its content is there already."""
        key = upload_key(agent.owner, file.sha256)
        with self._writing(agent):
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
                    self._incoming.take_checked(
                        agent.run_id, agent.n, key, size_bytes=file.size_bytes, sha256=file.sha256
                    )
                    self._incoming.done(agent.run_id, agent.n, key)
            return self.models.publish(
                owner=agent.owner, project=agent.project, name=name, run_id=agent.run_id, card=card, files=files
            )
