"""What is known of a run: its spec, its states and the moves between them, its attempts, its reason.

All of it crosses a boundary (HTTP, store, ``run.json``), hence pydantic; none of it touches a disk or a network.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, PlainSerializer

from atelier import reasons

ANY_REASON, REASON_TEXT, RETRYABLE, RETRY_CHOICES = (
    reasons.ANY_REASON,
    reasons.REASON_TEXT,
    reasons.RETRYABLE,
    reasons.RETRY_CHOICES,
)
Reason = reasons.Reason
"""These belong to the records; where they stand they need no pydantic, and so the agent knows them too."""

RUN_ID = re.compile(r"r-[a-z2-7]{10}")
MOST_FILE_BYTES = 2**53
"""More than any file has; up to here every reader of JSON has whole numbers exactly."""

_ALPHABET = "abcdefghijklmnopqrstuvwxyz234567"


def new_run_id() -> str:
    """A fresh run id: ``r-`` and 10 random lower-case base-32 letters (50 bits)."""
    return "r-" + "".join(secrets.choice(_ALPHABET) for _ in range(10))


def _aware(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _iso_z(value: datetime) -> str:
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _no_number(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError("it is to be a time, as 2026-01-31T12:00:00Z")
    return value


Moment = Annotated[
    datetime,
    BeforeValidator(_no_number),
    AfterValidator(_aware),
    PlainSerializer(_iso_z, return_type=str, when_used="json"),
]


def _number(value: Any) -> Any:
    if isinstance(value, str | bool):
        raise ValueError("it is to be a number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
"""A whole number as JSON has it, 3 or 3.0; no text and no truth value is taken for one."""

Real = Annotated[float, BeforeValidator(_number)]
"""A number as JSON has it."""

Positive = Annotated[float, Field(gt=0), BeforeValidator(_number)]


class Record(BaseModel):
    """Base of all that crosses a boundary: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class RunState(StrEnum):
    """Where a run is. Final states are never left."""

    CREATED = "created"
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        return self in FINAL_STATES


FINAL_STATES = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED, RunState.TIMED_OUT, RunState.LOST})
"""A run is final only when no further attempt is due."""

RUN_MOVES: dict[RunState, frozenset[RunState]] = {
    RunState.CREATED: frozenset({RunState.QUEUED, RunState.CANCELLED, RunState.FAILED}),
    RunState.QUEUED: frozenset({RunState.STARTING, RunState.CANCELLED, RunState.TIMED_OUT, RunState.FAILED}),
    RunState.STARTING: frozenset({RunState.RUNNING, RunState.QUEUED, *FINAL_STATES}),
    RunState.RUNNING: frozenset({RunState.QUEUED, *FINAL_STATES}),
    **{state: frozenset() for state in FINAL_STATES},
}
"""The moves a run may make; a retry is the move back to ``queued``."""


class AttemptState(StrEnum):
    """Where one try at a run is."""

    STARTING = "starting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    PREEMPTED = "preempted"
    LOST = "lost"

    @property
    def is_final(self) -> bool:
        return self not in {AttemptState.STARTING, AttemptState.RUNNING}


class WorkKind(StrEnum):
    """What the work is."""

    NOTEBOOK = "notebook"
    SCRIPT = "script"
    MODULE = "module"
    FUNCTION = "function"


class Work(Record):
    """The code that a run executes, inside its bundle.

    ``target`` is a POSIX path within the bundle for a notebook or a script, ``package.module`` for a module and
    ``package.module:function`` for a function. ``folder`` is the working directory within the bundle, also
    ``sys.path[0]``; ``"."`` is the bundle's root.
    """

    kind: WorkKind
    target: str = Field(min_length=1, max_length=1024)
    folder: str = Field(default=".", max_length=1024)


class RunSpec(Record):
    """What a user asks for. ``image`` and ``machine`` are names of the catalog; None is its default."""

    kind: Literal["job"] = "job"
    work: Work
    bundle: str = Field(pattern=r"^[0-9a-f]{64}$", description="sha256 of the bundle")
    params: dict[str, JsonValue] = Field(default_factory=dict)
    image: str | None = None
    python: str | None = Field(default=None, description="interpreter of the image 'current'; only on one machine")
    machine: str | None = None
    nodes: Whole = Field(default=1, ge=1, le=1024)
    retries: Whole = Field(default=0, ge=0, le=100)
    retry_on: list[Annotated[str, Field(max_length=32)]] = Field(
        default_factory=lambda: sorted(reason.value for reason in RETRYABLE - {Reason.PREEMPTED}),
        max_length=40,
        description="reasons after which it is tried again, or 'any'",
    )
    priority: Whole = Field(default=0, ge=-100, le=100, description="orders its owner's own runs; higher goes first")
    timeout_s: Positive | None = None
    queue_timeout_s: Positive | None = None
    stall_timeout_s: Positive | None = None
    name: str | None = Field(default=None, max_length=200)
    project: str | None = Field(default=None, max_length=200)
    data: list[str] = Field(default_factory=list, max_length=100)


class Progress(Record):
    """How far a run is: ``done`` of ``total`` (None when unknown). ``left_s`` needs two points, else None.

    After the end, however it came, it stays as it was told last, with ``left_s`` None; a new attempt begins without.
    """

    done: Real
    total: Real | None = None
    unit: Literal["cells"] | None = Field(default=None, description="what is counted; null is what the code counts")
    left_s: Real | None = None
    at: Moment


class ErrorReport(Record):
    """The user's own traceback and where in his code it ended."""

    kind: str
    message: str
    traceback: str
    cell: Whole | None = Field(default=None, description="index of the notebook cell, counted from 1 over code cells")
    file: str | None = None
    line: Whole | None = None


class Environment(Record):
    """What the run gets beside its code: the image, and its packages as a lock (``name==version`` lines, sorted)."""

    image: str
    python: str
    lock_sha256: str
    requirements_sha256: str | None = None


class Source(Record):
    """Where the code came from: git revision, whether it was changed, files of the bundle, warnings of the capture."""

    git_revision: str | None = None
    git_dirty: bool = Field(default=False, strict=True)
    root: str | None = Field(default=None, description="folder on the submitting machine that the bundle was made from")
    files: Whole = Field(default=0, ge=0)
    size_bytes: Whole = Field(default=0, ge=0)
    warnings: list[str] = Field(default_factory=list)


class Attempt(Record):
    """One try at a run."""

    n: int
    state: AttemptState
    reason: Reason | None = None
    message: str | None = None
    exit_code: int | None = None
    error: ErrorReport | None = None
    created_at: Moment
    started_at: Moment | None = None
    ended_at: Moment | None = None
    last_seen_at: Moment | None = None
    log_size_bytes: int = 0
    usage: dict[str, float] = Field(default_factory=dict, description="newest cpu_percent, memory_bytes, gpu_percent …")


class Run(Record):
    """The whole record of a run, as every client sees it and as ``run.json`` keeps it."""

    id: str
    owner: str
    project: str
    name: str
    spec: RunSpec
    state: RunState
    desired: Literal["finished", "cancelled"] = "finished"
    reason: Reason | None = None
    message: str = Field(default="", description="the state in one plain sentence")
    hint: str = Field(default="", description="one next action; empty when none is due")
    image: str
    machine: str
    memory_bytes: int | None = Field(default=None, description="what its machine has")
    priority: int = Field(default=0, description="as it is now; higher goes first among its owner's own")
    queue_position: int | None = Field(
        default=None, description="in which order it is tried, from 1; null unless queued"
    )
    not_before: Moment | None = Field(default=None, description="when a queued run may be tried again")
    progress: Progress | None = None
    attempts: list[Attempt] = Field(default_factory=list)
    checkpoint_step: int | None = Field(default=None, description="of the newest checkpoint; another attempt goes on")
    environment: Environment | None = None
    source: Source = Field(default_factory=Source)
    metrics: dict[str, float | None] = Field(default_factory=dict, description="newest values; null is not finite")
    artifacts: int = 0
    warnings: list[str] = Field(default_factory=list)
    pinned: bool = Field(default=False, description="kept until its owner removes it, whatever retention says")
    created_at: Moment
    queued_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    epoch: int = 0
    version: int = Field(default=1, description="schema of this record")


class Artifact(Record):
    """A file that a run left: ``saved`` by ``job.save()``, or ``written`` in its working directory."""

    path: str
    size_bytes: int
    sha256: str
    kind: Literal["saved", "written", "model", "checkpoint", "notebook"] = "written"
    attempt: int
    created_at: Moment


class ModelVersion(Record):
    """An immutable packaged model. ``card`` is the package's ``model.json`` (signature, formats, parity, lineage)."""

    name: str
    version: int
    owner: str
    project: str
    run: str | None = None
    aliases: list[str] = Field(default_factory=list)
    card: dict[str, Any]
    files: list[ModelFile]
    size_bytes: int
    created_at: Moment


class ModelFile(Record):
    """One file of a model package, by its content."""

    path: str
    size_bytes: Whole = Field(ge=0, le=MOST_FILE_BYTES)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


ModelVersion.model_rebuild()


class Page(Record):
    """One page of a list; ``next`` is an opaque token or None at the end."""

    items: list[Any]
    next: str | None = None
