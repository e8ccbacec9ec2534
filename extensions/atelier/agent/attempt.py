"""One attempt from start to end: prepare, run the work under its limits, keep what it left, stamp the end, deliver."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from atelier.agent.events import OVER
from atelier.agent.family import Family
from atelier.agent.link import Link
from atelier.agent.logfile import LogFile
from atelier.agent.outcome import PREEMPTED_EXIT_CODE, Result, stopped
from atelier.agent.outputs import remember, written
from atelier.agent.place import Place, fetch, write_whole
from atelier.agent.requirements import FILE, InstallFailed, install
from atelier.agent.shipper import AWAY_PAUSE_S, Shipper, write_control
from atelier.agent.surroundings import (
    bring_checkpoint,
    environment_record,
    packages_of,
    work_environment,
    write_params,
)
from atelier.agent.works import ProcessWork, Work
from atelier.archive import unpack_bundle
from atelier.errors import AtelierError, Unavailable, Unreachable

STOP_GRACE_S = 10.0
EVENT_FILE_TIMEOUT_S = 120.0
POLLS = "polls-stop"
"""The recorder leaves this file in the spool when the code asks ``should_stop()``; such code may end by itself."""


class Attempt:
    """The whole life of one attempt. `run` does it; `deliver` brings in what a dead agent has left."""

    def __init__(self, place: Place) -> None:
        self.place = place
        key = f"{place.orders['run']}/{place.orders['attempt']}"
        self.link = Link(place.orders["service"], place.token)
        self.family = Family(key)
        self.shipper = Shipper(self.link, place, self.family, self.stop)
        self.orders: dict[str, Any] = {}
        self._work: Work | None = None
        self._order: str | None = None
        self._stop_lock = threading.Lock()
        self._done = threading.Event()

    def run(self) -> int:
        """Do it; the exit code of the agent: 0 done, 75 preempted, 1 anything else."""
        self.place.make()
        try:
            self.orders = self._fetch_orders()
        except AtelierError as problem:
            return self._give_back(problem)
        self.log = LogFile(self.place.log, int(self.orders["limits"]["log_bytes"]))
        signal.signal(signal.SIGTERM, lambda *_: self.stop("preempt", STOP_GRACE_S))
        self.shipper.start()
        result = self._guarded()
        self._done.set()
        return self._end(result)

    def _fetch_orders(self) -> dict[str, Any]:
        while True:
            try:
                return self.link.get("/orders")
            except Unreachable:
                time.sleep(AWAY_PAUSE_S)

    def _give_back(self, problem: AtelierError) -> int:
        """End an attempt for which the service has no orders: its image went away, say."""
        if problem.code in OVER:
            raise problem
        result = Result("failed", "start_failed", problem.message)
        write_whole(self.place.result, json.dumps(result.as_json()).encode())
        self._finish(result.as_json())
        return 1

    def _guarded(self) -> Result:
        try:
            return self._prepare_and_run()
        except InstallFailed as problem:
            return stopped(self._order) if self._order else problem.as_result()
        except AtelierError as problem:
            if self._order:
                return stopped(self._order)
            self.log.line(f"error[{problem.code}]: {problem}")
            reason = "kernel_missing" if problem.code == "no_kernel" else "start_failed"
            return Result("failed", reason, problem.message)
        except OSError as problem:
            self.log.line(f"error: {problem}")
            reason = "disk_full" if problem.errno == 28 else "start_failed"
            return Result("failed", reason, f"The run could not be prepared: {problem}.")

    def _prepare_and_run(self) -> Result:
        place, orders = self.place, self.orders
        bundle = place.folder / "bundle.tar.zst"
        fetch(orders["bundle"], bundle)
        unpack_bundle(bundle, place.work, limit_bytes=int(orders["limits"]["bundle_bytes"]))
        bundle.unlink()
        write_params(place, orders["spec"]["params"])
        write_control(place, None)
        python = Path(orders["python"])
        folder = place.work / orders["spec"]["work"]["folder"]
        lock, requirements = packages_of(python), folder / FILE
        bins: tuple[Path, ...] = (python.parent,)
        if requirements.exists():
            overlay = install(
                requirements,
                python,
                lock=lock,
                layers=self._layers(),
                bundle=orders["spec"]["bundle"],
                environment=self._environment(bins, None),
                tell=self.log.write,
            )
            python, bins = overlay.python, overlay.bins
            lock = "".join(sorted({*lock.splitlines(keepends=True), *packages_of(python).splitlines(keepends=True)}))
        resume = bring_checkpoint(place, orders["checkpoints"], self.shipper.warn)
        remember(place.work, place.before)
        environment = self._environment(bins, resume)
        self._started(environment_record(orders["image"], python, lock, requirements), lock)
        return self._do(self._make_work(python, environment, folder, lock))

    def _layers(self) -> Path:
        return self.place.folder.parents[3] / "envs" / "layers"

    def _environment(self, bins: tuple[Path, ...], resume: Path | None) -> dict[str, str]:
        return work_environment(os.environ, self.place, self.orders, bins, resume)

    def _started(self, environment: dict[str, Any], lock: str) -> None:
        while True:
            try:
                self.link.post("/started", {"environment": environment, "lock": lock})
                return
            except Unreachable:
                time.sleep(AWAY_PAUSE_S)

    def _make_work(self, python: Path, environment: dict[str, str], folder: Path, lock: str) -> Work:
        command = self.orders["command"]
        if command["kind"] != "notebook":
            argv = [str(python), "-u", *command["argv"]]
            return ProcessWork(
                argv,
                environment=environment,
                folder=folder,
                log=self.log,
                root=self.place.work,
                on_end=self.family.end,
            )
        if lock and "\nipykernel==" not in f"\n{lock}":
            words = f"The image {self.orders['image']!r} has no ipykernel, so it can't run notebooks."
            raise Unavailable("no_kernel", words, hint="Add ipykernel to requirements.txt, or pick another image.")
        from atelier.agent.notebook import NotebookWork

        source = self.place.work / self.orders["spec"]["work"]["target"]
        self.shipper.name_notebook(source.name)
        return NotebookWork(
            source,
            parameters=command["parameters"],
            python=str(python),
            environment=environment,
            folder=folder,
            log=self.log,
            saved=self.place.notebook,
            on_saved=self.shipper.wake,
            on_cell=lambda done, total: self.shipper.progress.set(done, total, time.time(), own=False),
        )

    def _do(self, work: Work) -> Result:
        with self._stop_lock:
            self._work = work
            order = self._order
        if order is not None:
            return stopped(order)
        watch = threading.Thread(target=self._enforce_limits, name="limits", daemon=True)
        watch.start()
        result = work.run()
        if self._order is not None:
            return stopped(self._order, result.exit_code)
        return result

    def _enforce_limits(self) -> None:
        spec, began = self.orders["spec"], time.monotonic()
        left_s = None if spec["timeout_s"] is None else spec["timeout_s"] - self.orders["ran_s"]
        while not self._done.wait(0.1):
            if left_s is not None and time.monotonic() - began > left_s:
                self.stop("deadline", STOP_GRACE_S)
                return
            if (
                spec["stall_timeout_s"] is not None
                and time.monotonic() - self.shipper.last_sign > spec["stall_timeout_s"]
            ):
                self.stop("stalled", 0.0)
                return

    def stop(self, order: str, grace_s: float) -> None:
        """Tell the work to stop: by ``should_stop()``, then by a signal, then for good. The first order stands."""
        with self._stop_lock:
            if self._order is not None:
                return
            self._order = order
            work = self._work
        write_control(self.place, order)
        threading.Thread(target=self._stop_work, args=(work, grace_s), name="stop", daemon=True).start()

    def _stop_work(self, work: Work | None, grace_s: float) -> None:
        if work is None:
            self.family.end()  # an installer; the work itself is not begun any more
            return
        deadline = time.monotonic() + grace_s
        polls = (self.place.spool / POLLS).exists()
        if polls and self._done.wait(max(0.0, grace_s)):
            return
        work.interrupt()
        if not self._done.wait(min(3.0, max(0.5, deadline - time.monotonic()))):
            work.kill()
            self.family.end()

    def _end(self, result: Result) -> int:
        self.family.end()
        if self.log.dropped_bytes:
            self.shipper.warn(f"{self.log.dropped_bytes} bytes of the log were left out: it reached its limit.")
        self.log.close()
        write_whole(self.place.result, json.dumps(result.as_json()).encode())
        self._deliver(result.as_json())
        return PREEMPTED_EXIT_CODE if result.state == "preempted" else 0 if result.state == "succeeded" else 1

    def deliver(self) -> int:
        """Bring in what a dead agent has left; without its word on the end, the attempt is lost."""
        self.place.make()
        self.orders = self._fetch_orders()
        self.family.end()
        if not self.place.result.exists():
            write_whole(self.place.result, json.dumps(Result("lost", "agent_lost").as_json()).encode())
        self.shipper.start()
        self._deliver(json.loads(self.place.result.read_text()))
        return 0

    def _deliver(self, result: dict[str, Any]) -> None:
        self._keep_written()
        self._keep_event_file()
        self.shipper.drain()
        if not self.shipper.is_stale:
            self._finish(result)

    def _finish(self, result: dict[str, Any]) -> None:
        while True:
            try:
                self.link.post("/finish", result)
                return
            except Unreachable:
                time.sleep(AWAY_PAUSE_S)

    def _keep_event_file(self) -> None:
        """Keep the metrics as a TensorBoard event file too; the metrics themselves are safe without it."""
        metrics, folder = self.place.spool / "metrics.jsonl", self.place.folder / "tensorboard"
        if not metrics.exists():
            return
        argv = [sys.executable, "-m", "atelier.agent.tensorboard", str(metrics), str(folder)]
        if subprocess.run(argv, stdin=subprocess.DEVNULL, check=False, timeout=EVENT_FILE_TIMEOUT_S).returncode != 0:
            self.shipper.warn("The metrics could not be written as a TensorBoard event file.")
            return
        for path in sorted(folder.iterdir()):
            self.shipper.ship_file(path, f"tensorboard/attempt-{self.place.orders['attempt']}/{path.name}")

    def _keep_written(self) -> None:
        """Keep new and changed files as artifacts; the first one over the limit ends it, and is named."""
        if not self.place.before.exists():
            return
        names, more = written(self.place.work, self.place.before)
        if more:
            self.shipper.warn(f"{more} more files that the run wrote were not kept: a run may leave {len(names)}.")
        for name in names:
            try:
                self.shipper.ship_file(self.place.work / name, name)
            except AtelierError as problem:
                self.shipper.warn(f"{name} was not kept: {problem.message}")
            except OSError as problem:
                self.shipper.warn(f"{name} was not kept: {problem.strerror}.")
