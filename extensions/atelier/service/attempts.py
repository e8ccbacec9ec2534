"""What agents tell of their attempts, and what they are told."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy.exc import DBAPIError

from atelier.bundle.archive import bundle_reader
from atelier.crash_points import crash_point
from atelier.errors import NotAllowed, RefusedInput, Unavailable
from atelier.local.catalog import availability
from atelier.records import (
    AttemptState,
    ErrorReport,
    Reason,
    Run,
    Whole,
    WorkKind,
)
from atelier.service.attempt_files import AgentCaller, AttemptFiles, FileReport, artifact_key
from atelier.service.backends import Key
from atelier.service.boundary import FromAgent, RanS
from atelier.service.feed import Event, metrics_event
from atelier.service.manager import CURRENT
from atelier.service.silence import Silence
from atelier.service.starts import told_of_image
from atelier.service.store import Outcome, hash_token, is_disk_full
from atelier.storage import RunPaths
from atelier.works.finding import parameters_source, script_argv

__all__ = ["AgentCaller", "AttemptManager", "FileReport", "FinishReport", "artifact_key"]

log = logging.getLogger("atelier.service")


class FinishReport(FromAgent):
    """How an agent says that its attempt ended."""

    state: AttemptState
    reason: Reason | None = None
    message: str | None = None
    exit_code: Whole | None = None
    error: ErrorReport | None = None
    ran_s: RanS = None
    hint: str | None = None

    def as_outcome(self) -> Outcome:
        """The same for the store."""
        return Outcome(self.state, self.reason, self.message, self.exit_code, self.error, self.ran_s, self.hint)


@dataclass
class AttemptManager(AttemptFiles):
    """Serves agents, and brings attempts to their ends."""

    silence: Silence = field(default_factory=Silence)
    _records: threading.Lock = field(default_factory=threading.Lock)

    def caller(self, authorization: str | None) -> AgentCaller:
        """Whose ``Authorization: run <token>`` this is; a token of an ended attempt is still known, to be told so."""
        scheme, _, token = (authorization or "").partition(" ")
        row = self.store.runs.by_token(hash_token(token.strip())) if scheme.lower() == "run" and token else None
        if row is None:
            raise NotAllowed("unauthenticated", "The request has no run token that this service knows.")
        self.silence.heard(Key(row.run_id, row.n))
        return AgentCaller(row.run_id, row.n, row.owner, row.project, row.cpu, row.memory_bytes)

    def orders(self, agent: AgentCaller) -> dict[str, Any]:
        """All that an agent needs for its attempt."""
        run = self._live(agent)
        paths = RunPaths(run.id)
        return {
            "run": run.id,
            "name": run.name,
            "attempt": agent.n,
            "spec": run.spec.model_dump(mode="json"),
            "image": run.image,
            "python": self._python(run),
            "images": self._others(run),
            "cpu": agent.cpu,
            "command": self._command(run),
            "stop": self.store.runs.ordered_stop(run.id, agent.n),
            "bundle": self.blobs.read_url(paths.bundle),
            "ran_s": self.store.runs.ran_s(run.id),
            "limits": {
                "bundle_bytes": self.limits.unpacked_size,
                "artifact_bytes": self.limits.artifact_size,
                "log_bytes": self.limits.log_size,
                "memory_bytes": agent.memory_bytes,
                "disk_bytes": self.limits.disk_size,
                "control_groups": self.limits.control_groups,
                "install_s": self.limits.install_time,
                "patience_s": self.limits.patience,
            },
            "checkpoints": [
                {
                    "step": kept.step,
                    "files": [
                        file
                        | {
                            "url": self.blobs.read_url(
                                f"{paths.checkpoint(kept.attempt, kept.step, copy=kept.copy)}/{file['path']}"
                            )
                        }
                        for file in kept.files
                    ],
                }
                for kept in self.store.artifacts.checkpoints(run.id)
            ],
        }

    def delivery(self, agent: AgentCaller) -> dict[str, Any]:
        """What an agent needs that only brings in what another one left: neither code nor image."""
        run = self._live(agent)
        work = run.spec.work
        return {
            "stop": self.store.runs.ordered_stop(run.id, agent.n),
            "artifact_bytes": self.limits.artifact_size,
            "patience_s": self.limits.patience,
            "notebook": PurePosixPath(work.target).name if work.kind is WorkKind.NOTEBOOK else None,
        }

    def _command(self, run: Run) -> dict[str, Any]:
        """What the agent runs; made here, where the code can be read, so that the agent needs no parser."""
        work = run.spec.work
        if work.kind is WorkKind.NOTEBOOK:
            return {"kind": "notebook", "parameters": parameters_source(run.spec.params) if run.spec.params else ""}
        if work.kind is WorkKind.FUNCTION:
            return {"kind": "function", "argv": ["-m", "atelier.invoke", work.target]}
        with self.blobs.open(RunPaths(run.id).bundle) as source, tempfile.NamedTemporaryFile(suffix=".tar.zst") as copy:
            shutil.copyfileobj(source, copy)
            copy.flush()
            read = bundle_reader(Path(copy.name), limit_bytes=self.limits.unpacked_size)
            arguments = script_argv(read, work, run.spec.params)
        if work.kind is WorkKind.MODULE:
            return {"kind": "module", "argv": ["-m", work.target, *arguments]}
        name = PurePosixPath(work.target).name
        script = f"./{name}" if name.startswith("-") else name  # which Python would read as an option
        return {"kind": "script", "argv": [script, *arguments]}

    def _python(self, run: Run) -> str:
        if run.image == CURRENT and run.spec.python:
            return run.spec.python
        catalog = self.offers()
        image = catalog.image(run.image, [group for one in catalog.images for group in one.groups])
        if image.python is None:
            raise Unavailable("no_python", f"The image {run.image!r} has no interpreter on this machine.")
        return image.python

    def lacking(self, run_id: str) -> tuple[str, str] | None:
        """Why a run whose image isn't on this computer waits, and what to do; None where it is."""
        run = self.store.runs.get(run_id)
        image = next((one for one in self.offers().images if one.name == run.image), None)
        if run.image == CURRENT or (image is not None and availability(image) is None):
            return None
        return told_of_image(run.image)

    def _others(self, run: Run) -> dict[str, str]:
        """The interpreters of the other images that everybody may use."""
        images = self.offers().images
        return {one.name: one.python for one in images if one.python and not one.groups and one.name != run.image}

    def started(self, agent: AgentCaller, environment: dict[str, Any] | None, lock: str) -> None:
        """The work begins, in an environment whose packages are ``lock``."""
        with self._writing(agent):
            crash_point("service.started.before")
            self.blobs.write(RunPaths(agent.run_id).lock, lock.encode())
            crash_point("service.started.lock")
            self.store.runs.started(agent.run_id, agent.n, environment)
            crash_point("service.started.rows")
        self.write_record(agent.run_id)
        crash_point("service.started.after")
        self.feed.touch(agent.owner)

    def ended(self, agent: AgentCaller, ran_s: float | None = None) -> None:
        """The work has ended, and its limits with it; the agent delivers what it left."""
        self._live(agent)
        crash_point("service.ended.before")
        self.store.reserve.use(lambda: self.store.runs.work_ended(agent.run_id, agent.n, ran_s=ran_s))
        crash_point("service.ended.after")

    def heartbeat(
        self,
        agent: AgentCaller,
        progress: Mapping[str, Any] | None,
        usage: Mapping[str, float],
        warnings: Sequence[str],
        *,
        code_warnings: Sequence[str] = (),
        ran_s: float | None = None,
    ) -> tuple[str, float] | None:
        """A sign of life; the order to stop and the seconds there are for it, or None.

        On a full disk only one that has an order to hear is noted.
        """

        def note() -> tuple[str, float] | None:
            key = agent.run_id, agent.n
            return self.store.streams.heartbeat(
                *key, progress=progress, usage=usage, warnings=warnings, code_warnings=code_warnings, ran_s=ran_s
            )

        crash_point("service.heartbeat.before")
        try:
            stop = note()
        except DBAPIError as problem:
            if not is_disk_full(problem) or self.store.runs.ordered_stop(agent.run_id, agent.n) is None:
                raise
            stop = self.store.reserve.use(note)
        crash_point("service.heartbeat.after")
        self.feed.touch(agent.owner)
        return stop

    def append(self, agent: AgentCaller, stream: str, offset: int, data: bytes) -> int:
        """Bytes of a stream; its acknowledged size afterwards."""
        with self._writing(agent):
            size, points = self.streams.append(agent.run_id, agent.n, stream, offset, data)
        if data and stream == "log":
            event = Event("log", {"run": agent.run_id, "attempt": agent.n, "size": size})
            self.feed.publish(agent.owner, agent.run_id, event)
        if points:
            # A later attempt tells some steps again: its first points take others away, so views read the curves anew.
            takes_back = agent.n > 1 and offset == 0
            event = Event("resync", {}) if takes_back else metrics_event(agent.run_id, points)
            self.feed.publish(agent.owner, agent.run_id, event)
        return size

    def finish(self, agent: AgentCaller, report: FinishReport) -> Run:
        """The attempt's end, once; a second report changes nothing but a record that the first one left as it was."""
        if not report.state.is_final:
            raise RefusedInput("not_final", f"An attempt can't end as {report.state.value!r}.")
        with self._fence.hold(agent.run_id):
            run = self.store.runs.get(agent.run_id)
            if any(attempt.n == agent.n and attempt.state.is_final for attempt in run.attempts):
                self.write_record(run.id)
                return run
            crash_point("service.finish.before")
            told = json.dumps(report.model_dump(mode="json"), indent=1).encode()
            run = self.end(Key(agent.run_id, agent.n), report.as_outcome(), told)
        crash_point("service.finish.after")
        self.feed.touch(agent.owner)
        return run

    def end(self, key: Key, outcome: Outcome, told: bytes | None = None) -> Run:
        """End an attempt, whoever says so; ``told`` is its agent's word. Nothing of it is written from now on.

        One that has ended already stays as it is.
        """
        with self._fence.hold(key.run_id):
            is_composed = self.compose(*key)
            self._incoming.close(*key)
            crash_point("service.finish.composed")
            if told is not None:
                self.store.reserve.use(lambda: self.blobs.write(RunPaths(key.run_id).result(key.n), told))
                crash_point("service.finish.result")
            run = self.store.reserve.use(lambda: self.store.runs.finish(*key, outcome))
            crash_point("service.finish.rows")
        if is_composed and run.state.is_final and len(run.attempts) > 1:  # an earlier one may have found no room
            self._unless_full(lambda: self.catch_up(key.run_id), key.run_id)
        elif is_composed:
            self.write_record(key.run_id)
        return run

    def compose(self, run_id: str, n: int) -> bool:
        """Make the streams of an ended attempt one object each; whether the disk had room for that.

        An attempt ends without it, for its end makes room; until `catch_up` its streams are read as they came.
        """
        return self._unless_full(lambda: self.streams.compose(run_id, n), run_id)

    def catch_up(self, run_id: str) -> None:
        """Do for an ended run what a crash or a full disk has put off."""
        for attempt in self.store.runs.get(run_id).attempts:
            self.streams.compose(run_id, attempt.n)
            self._incoming.close(run_id, attempt.n)
        self.write_record(run_id)

    def write_record(self, run_id: str) -> None:
        """Bring ``run.json`` up to date; one at a time, so that what was read last is what stands there.

        A full disk puts it off: the run itself has moved on.
        """
        self._unless_full(lambda: self._write_record(run_id), run_id)

    def _unless_full(self, work: Callable[[], object], run_id: str) -> bool:
        try:
            work()
        except (OSError, DBAPIError) as problem:
            if not is_disk_full(problem):
                raise
            log.warning("The record of %s waits for room: %s", run_id, problem)
            return False
        return True

    def _write_record(self, run_id: str) -> None:
        with self._records:
            run = self.store.runs.get(run_id)
            crash_point("service.record.before")
            self.blobs.write(RunPaths(run_id).record, run.model_dump_json(indent=1).encode())
            crash_point("service.record.written")
        if run.state.is_final:
            self.store.runs.recorded(run_id)
            crash_point("service.record.after")
