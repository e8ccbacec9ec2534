"""How much the GPUs of an attempt are used, asked of NVIDIA's management library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class GpuMeter:
    """Use of some GPUs; silent where there is no driver, and for devices that it doesn't know.

    Parameters
    ----------
    uuids : sequence of str
        The GPUs that the attempt holds.
    """

    def __init__(self, uuids: Sequence[str]) -> None:
        self._uuids = list(uuids)
        self._handles: list[Any] | None = None
        self._library: Any = None

    def usage(self) -> dict[str, float]:
        """``gpu_percent`` (mean) and ``gpu_memory_bytes`` (sum) over the GPUs; empty where nothing can be known."""
        if not self._uuids or not self._open():
            return {}
        library, handles = self._library, self._handles or []
        try:
            busy = [library.nvmlDeviceGetUtilizationRates(handle).gpu for handle in handles]
            memory = [library.nvmlDeviceGetMemoryInfo(handle).used for handle in handles]
        except library.NVMLError:
            return {}
        return {"gpu_percent": sum(busy) / len(busy), "gpu_memory_bytes": float(sum(memory))}

    def _open(self) -> bool:
        """Find the devices, once; whether there are any."""
        if self._handles is None:
            self._handles = []
            try:
                import pynvml

                self._library = pynvml
                pynvml.nvmlInit()
                self._handles = [pynvml.nvmlDeviceGetHandleByUUID(uuid) for uuid in self._uuids]
            except ImportError:
                return False
            except self._library.NVMLError:
                self._handles = []
        return bool(self._handles)
