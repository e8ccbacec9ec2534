"""One attempt from start to end: prepare, run the work under its limits, keep what it left, stamp the end, deliver."""

from __future__ import annotations

import os
import secrets
import signal
import time
import traceback
from math import inf
from pathlib import Path
from typing import Any

from atelier.agent.abandoned import end_with_folder
from atelier.agent.delivery import Delivery
from atelier.agent.disk import DiskShare
from atelier.agent.events import OVER
from atelier.agent.family import Family
from atelier.agent.gpu import GpuMeter
from atelier.agent.heart import Heart
from atelier.agent.launching import Launcher
from atelier.agent.limits import STOP_GRACE_S, Limits, out_of_time
from atelier.agent.link import Link
from atelier.agent.logfile import LogFile
from atelier.agent.logtail import append_tail
from atelier.agent.memory import GroupMemory, MemoryLimit, WatchedMemory
from atelier.agent.nearest import Surroundings, explained
from atelier.agent.notebook_end import stamp
from atelier.agent.outcome import PREEMPTED_EXIT_CODE, Result, stopped, written_end
from atelier.agent.outputs import remember
from atelier.agent.place import Place, fetch
from atelier.agent.requirements import FILE, InstallFailed, Layer, Patience, install
from atelier.agent.resuming import Checkpoints
from atelier.agent.retrying import until_answered
from atelier.agent.shipper import Shipper, write_control
from atelier.agent.stopping import MEMORY, Stopper
from atelier.agent.surroundings import (
    environment_record,
    packages_of,
    work_environment,
    write_params,
)
from atelier.agent.tight import until_room
from atelier.agent.works import ProcessWork, Work
from atelier.agent.worktime import WorkTime
from atelier.bundle.archive import unpack_bundle
from atelier.crash_points import crash_point
from atelier.errors import AtelierError, Unavailable
from atelier.local.cgroups import make_group, noted_group
from atelier.local.disk import is_full


class Attempt:
    """The whole life of one attempt. `run` does it; `deliver` brings in what a dead agent has left."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.link = Link(place.orders["service"], place.token)
        family = Family(f"{place.orders['run']}/{place.orders['attempt']}", place.folder)
        gpus = GpuMeter(place.orders["devices"].get("nvidia.com/gpu", ()))
        self.family, self.stopper = family, Stopper(place, family)
        self.work_time = WorkTime(place.work_time)
        line = Link(place.orders["service"], place.token)
        self.heart = Heart(line, family, gpus, work_time=self.work_time, on_stop=self.stopper.stop)
        self.shipper = Shipper(Link(place.orders["service"], place.token), place, self.heart)
        self.delivery = Delivery(self.link, place, self.heart, self.shipper, work_time=self.work_time)
        self.orders: dict[str, Any] = {}
        self.layer: Layer | None = None
        self.memory: MemoryLimit | None = None
        self.work: Work | None = None

    def run(self) -> int:
        """Do it; the exit code of the agent: 0 done, 75 preempted, 1 anything else."""
        until_room(self.place.make)
        end_with_folder(self.place, self.family.close)
        crash_point("agent.orders.before")
        try:
            self._take_orders()
        except AtelierError as problem:
            return self._give_back(problem)
        crash_point("agent.orders.after")
        log_bytes = int(self.orders["limits"]["log_bytes"])
        self.log = LogFile(self.place.log, log_bytes, tail=self.place.log_tail, tell=self.heart.warn)
        signal.signal(signal.SIGTERM, lambda *_: self.stopper.stop("preempt", STOP_GRACE_S))
        self.heart.start()
        self.shipper.start()
        result = self._guarded()
        self.delivery.is_hurried = self.stopper.is_late.is_set
        self.shipper.hurry(self._is_hurried)
        self.stopper.done.set()
        crash_point("agent.work.ended")
        return self._end(result)

    def _is_hurried(self) -> bool:
        """Whether the user, who cancelled without a time to wait, has waited long enough for what it left."""
        return self.stopper.is_late.is_set() or (self.stopper.is_now and self.heart.is_let_go.is_set())

    def _take_orders(self) -> None:
        self.orders = until_answered(lambda: self.link.get("/orders"), lambda: False) or {}
        self.shipper.limit(int(self.orders["limits"]["artifact_bytes"]))
        self.heart.patience_s = float(self.orders["limits"]["patience_s"])
        if self.orders["command"]["kind"] == "notebook":
            self.shipper.name_notebook(Path(self.orders["spec"]["work"]["target"]).name)

    def _give_back(self, problem: AtelierError) -> int:
        """End an attempt for which the service has no orders: its image went away, say."""
        if problem.code in OVER:
            raise problem
        self.stopper.done.set()
        self.heart.start()
        self.shipper.start()
        self.delivery.run(self.delivery.note(Result("failed", "start_failed", problem.message)))
        return 1

    def _guarded(self) -> Result:
        try:
            result = self._prepare_and_run()
        except InstallFailed as problem:
            result = problem.as_result()
        except AtelierError as problem:
            self.log.line(f"error[{problem.code}]: {problem}")
            reason = "kernel_missing" if problem.code == "no_kernel" else "start_failed"
            result = Result("failed", reason, problem.message)
        except OSError as problem:
            self.log.line(f"error: {problem}")
            reason = "disk_full" if is_full(problem) else "start_failed"
            result = Result("failed", reason, f"The run could not be prepared: {problem}.")
        except Exception as problem:
            traceback.print_exc()
            self.log.line(f"error: {problem!r}")
            result = Result("failed", "start_failed", f"The run's agent failed: {problem!r}."[:500])
        return self._by_limits(result)

    def _by_limits(self, result: Result) -> Result:
        """The end as it was: by an order or a limit, whatever the work made of it."""
        if result.exit_code in {-signal.SIGTERM, 128 + signal.SIGTERM}:
            self.stopper.await_order()
        order, words = self.stopper.order, self.stopper.words
        if order is None and self.memory is not None:
            words = self.memory.breach() or ""
            order = MEMORY if words else None
        if order is None:
            return result
        if words and self.work is not None:
            words = f"{words} {self.work.where}".rstrip()
        return stopped(order, result.exit_code, words=words)

    def _prepare_and_run(self) -> Result:
        place, orders = self.place, self.orders
        bundle = place.folder / "bundle.tar.zst"
        crash_point("agent.fetch.before")
        fetch(orders["bundle"], bundle)
        crash_point("agent.fetch.after")
        unpack_bundle(bundle, place.work, limit_bytes=int(orders["limits"]["bundle_bytes"]))
        crash_point("agent.unpack.after")
        bundle.unlink()
        write_params(place, orders["spec"]["params"])
        write_control(place, None)
        crash_point("agent.params.after")
        python = Path(orders["python"])
        folder = place.work / orders["spec"]["work"]["folder"]
        lock, requirements = packages_of(python), folder / FILE
        bins: tuple[Path, ...] = (python.parent,)
        if requirements.exists():
            self.layer = install(
                requirements,
                python,
                lock=lock,
                layers=self.place.folder.parents[3] / "envs" / "layers",
                bundle=orders["spec"]["bundle"],
                environment=self._environment(bins, None),
                tell=self.log.write,
                patience=self._patience(),
            )
            python, bins = self.layer.overlay.python, self.layer.overlay.bins
            lock = "".join(sorted({*lock.splitlines(keepends=True), *packages_of(python).splitlines(keepends=True)}))
        crash_point("agent.resume.before")
        resume = self._checkpoints().bring(place)
        crash_point("agent.resume.after")
        remember(place.work, place.before)
        crash_point("agent.remember.after")
        environment = self._environment(bins, resume)
        self._started(environment_record(orders["image"], python, lock, requirements), lock)
        launcher, self.memory = self._hold()
        result = self._do(self._make_work(python, environment, folder, lock, launcher=launcher), self.memory)
        pythons = (python, Path(orders["python"]))
        return explained(result, Surroundings(orders["image"], pythons, orders["images"], place.work, folder))

    def _checkpoints(self) -> Checkpoints:
        return Checkpoints(
            self.orders["checkpoints"],
            ask=lambda: list(self.link.get("/orders")["checkpoints"]),
            is_over=lambda: self.stopper.order is not None,
            warn=self.heart.warn,
            patience_s=self.heart.patience_s,
        )

    def _patience(self) -> Patience:
        """An installation ends with its own limit, or when it alone takes all the time that the run's work may."""
        until = time.monotonic() + self._left_s()

        def is_stopped() -> bool:
            if time.monotonic() > until:
                self.stopper.stop("deadline", 0.0, words=out_of_time(self._whole_s()))
            return self.stopper.order is not None

        return Patience(self.orders["limits"]["install_s"], is_stopped=is_stopped, end=self.family.end)

    def _left_s(self) -> float:
        """Seconds that the work of this attempt may run: what those before it have left of the run's time."""
        return self._whole_s() - float(self.orders["ran_s"])

    def _whole_s(self) -> float:
        limit_s = self.orders["spec"]["timeout_s"]
        return inf if limit_s is None else float(limit_s)

    def _environment(self, bins: tuple[Path, ...], resume: Path | None) -> dict[str, str]:
        return work_environment(os.environ, self.place, self.orders, bins, resume)

    def _started(self, environment: dict[str, Any], lock: str) -> None:
        """Tell that the work begins; a service that can't note it holds the work back, but not an order to stop."""
        report = {"environment": environment, "lock": lock}
        crash_point("agent.started.before")
        until_answered(lambda: self.link.post("/started", report), lambda: self.stopper.order is not None)
        crash_point("agent.started.after")

    def _make_work(
        self, python: Path, environment: dict[str, str], folder: Path, lock: str, *, launcher: Launcher
    ) -> Work:
        command = self.orders["command"]
        if command["kind"] != "notebook":
            argv = [str(python), "-u", *command["argv"]]
            return ProcessWork(
                argv,
                environment=environment,
                folder=folder,
                log=self.log,
                root=self.place.work,
                launcher=launcher,
                on_end=self.family.end,
            )
        if lock and "\nipykernel==" not in f"\n{lock}":
            words = f"The image {self.orders['image']!r} has no ipykernel, so it can't run notebooks."
            raise Unavailable("no_kernel", words, hint="Add ipykernel to requirements.txt, or pick another image.")
        from atelier.agent.notebook import NotebookWork

        source = self.place.work / self.orders["spec"]["work"]["target"]
        return NotebookWork(
            source,
            parameters=command["parameters"],
            python=str(python),
            environment=environment,
            folder=folder,
            log=self.log,
            launcher=launcher,
            saved=self.place.notebook,
            on_saved=self.shipper.wake,
            on_cell=lambda done, total: self.heart.progress.set(done, total, time.time(), own=False),
            is_left=lambda: self.stopper.order == "preempt",
        )

    def _do(self, work: Work, memory: MemoryLimit) -> Result:
        if not self.stopper.begin(work):
            return stopped(self.stopper.order or "cancel")
        self.work = work
        self.work_time.begin()
        self._limits(memory).enforce(self.stopper)
        try:
            return work.run()
        finally:
            self.work_time.end()

    def _hold(self) -> tuple[Launcher, MemoryLimit]:
        """How the work is begun so that it is held to its machine's memory, by the kernel where that may be."""
        limits, place = self.orders["limits"], self.place
        memory_bytes = int(limits["memory_bytes"])
        if limits["control_groups"]:
            self.family.group = make_group(place.group_name, memory_bytes=memory_bytes, cpu=float(self.orders["cpu"]))
        group = self.family.group
        if group is not None:
            group.note(place.group)
        note = place.folder / f"not-begun-{secrets.token_hex(8)}"  # a name that the code, once begun, can't know
        launcher = Launcher(note, group)
        if group is not None and group.memory is not None:
            return launcher, GroupMemory(group, memory_bytes)
        return launcher, WatchedMemory(lambda: [each.pid for each in self.family.members()], memory_bytes)

    def _limits(self, memory: MemoryLimit) -> Limits:
        silent_s = self.orders["spec"]["stall_timeout_s"]
        return Limits(
            left_s=self._left_s(),
            whole_s=self._whole_s(),
            silent_s=inf if silent_s is None else float(silent_s),
            signs=lambda: [self.log.seen_bytes, *self.shipper.signs()],
            memory=memory,
            disk=DiskShare(self.place.folder, int(self.orders["limits"]["disk_bytes"])),
        )

    def _end(self, result: Result) -> int:
        self.family.close()
        self.log.close()
        if self.log.dropped_bytes:
            self.heart.warn(
                f"{self.log.dropped_bytes} bytes of the log, from its middle, were left out: it reached its limit."
            )
        if self.log.lost_bytes:
            self.heart.warn(f"{self.log.lost_bytes} bytes of the log were lost: the disk was full.")
        told = self.delivery.note(result)
        self._stamp_notebook(told)
        self.delivery.run(told)
        return PREEMPTED_EXIT_CODE if result.state == "preempted" else 0 if result.state == "succeeded" else 1

    def _stamp_notebook(self, result: dict[str, Any]) -> None:
        stamp(self.place.notebook, self.place.orders["run"], self.place.orders["attempt"], result)

    def deliver(self) -> int:
        """Bring in what a dead agent has left; without its word on the end, the attempt was stopped, or is lost."""
        until_room(self.place.make)
        end_with_folder(self.place, self.family.close)
        crash_point("agent.deliver.before")
        orders = until_answered(lambda: self.link.get("/delivery"), lambda: False) or {}
        crash_point("agent.deliver.asked")
        self.shipper.limit(int(orders["artifact_bytes"]))
        self.heart.patience_s = float(orders["patience_s"])
        if orders["notebook"]:
            self.shipper.name_notebook(orders["notebook"])
        self.family.group = noted_group(self.place.group, self.place.group_name)
        self.family.close()
        self.stopper.done.set()
        result = written_end(self.place.result)
        if result is None:
            order = orders["stop"]
            if order:
                self.heart.warn(
                    "The run's agent ended early: what it had not read yet of what the work printed is missing."
                )
            result = self.delivery.note(stopped(order) if order else Result("lost", "agent_lost"))
        append_tail(self.place.log, self.place.log_tail, self.heart.warn)
        self._stamp_notebook(result)
        self.shipper.take_over()
        self.heart.start()
        self.shipper.start()
        self.delivery.run(result)
        crash_point("agent.deliver.after")
        return 0
