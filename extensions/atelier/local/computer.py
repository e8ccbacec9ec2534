"""What this computer has: cores, memory, NVIDIA GPUs; what a container or an affinity takes away is not counted."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

QUERY_TIMEOUT_S = 10.0

log = logging.getLogger("atelier.computer")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU. ``uuid`` is what leases and ``CUDA_VISIBLE_DEVICES`` name it by."""

    uuid: str
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class Computer:
    """What may be given to notebooks and runs here."""

    cpu_count: int
    memory_bytes: int
    gpus: tuple[Gpu, ...] = ()


def this_computer(environ: Mapping[str, str] | None = None) -> Computer:
    """The computer that this process runs on; ``ATELIER_TEST_GPUS=id,id`` declares devices that are not there."""
    declared = (os.environ if environ is None else environ).get("ATELIER_TEST_GPUS")
    gpus = _GPUS.gpus() if declared is None else _declared(declared)
    return Computer(_cpu_count(), _memory_bytes(), gpus)


class GpuList:
    """The GPUs that ``nvidia-smi`` lists; none where it is missing or fails.

    Its answer is kept, for it takes up to a second. A failure is kept for ``retry_s``: a driver may be busy or loading.
    """

    def __init__(self, *, retry_s: float = 60.0) -> None:
        self._retry_s, self._ask_at = retry_s, 0.0
        self._gpus: tuple[Gpu, ...] | None = None
        self._lock = threading.Lock()

    def gpus(self) -> tuple[Gpu, ...]:
        """What it lists now."""
        with self._lock:
            if self._gpus is None and time.monotonic() >= self._ask_at:
                self._gpus = self._ask()
                self._ask_at = time.monotonic() + self._retry_s
            return self._gpus or ()

    def _ask(self) -> tuple[Gpu, ...] | None:
        program = shutil.which("nvidia-smi")
        if program is None:
            return ()
        command = [program, "--query-gpu=uuid,name,memory.total", "--format=csv,noheader,nounits"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=QUERY_TIMEOUT_S, check=True).stdout
        except (OSError, subprocess.SubprocessError) as problem:
            log.warning("No GPU is offered, for %s does not answer: %s", program, problem)
            return None
        return tuple(_gpu(line) for line in told.splitlines() if line.count(",") == 2)


def _gpu(line: str) -> Gpu:
    uuid, name, mebibytes = (part.strip() for part in line.split(","))
    return Gpu(uuid, name, int(mebibytes) * 2**20 if mebibytes.isdecimal() else 0)


def _declared(text: str) -> tuple[Gpu, ...]:
    return tuple(Gpu(name.strip(), "declared test device", 0) for name in text.split(",") if name.strip())


def _cpu_count() -> int:
    cores = len(os.sched_getaffinity(0))
    quota = _read_words("/sys/fs/cgroup/cpu.max")
    if len(quota) == 2 and quota[0].isdecimal():
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def _memory_bytes() -> int:
    total_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _read_words("/sys/fs/cgroup/memory.max")
    return min(total_bytes, int(limit[0])) if limit and limit[0].isdecimal() else total_bytes


def _read_words(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="ascii").split()
    except OSError:
        return []


_GPUS = GpuList()
