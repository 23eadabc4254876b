"""NVIDIA GPUs through NVML, where there are some; without a GPU, a driver or the package: none.

Keys carry NVML's number of the GPU, which is that of `nvidia-smi`. Only those are read that
`CUDA_VISIBLE_DEVICES` leaves to this process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from runlake._lazy import need
from runlake.system.machine import MEGABYTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping


class Gpus:
    """The readings of the GPUs that this process sees."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        """Find them; there may be none.

        Args:
            environ: the environment; None means the process's own.
        """
        self._handles: dict[int, Any] = {}
        self._nvml: Any = None
        try:
            nvml: Any = need("pynvml", extra="gpu")
            nvml.nvmlInit()
            self._nvml = nvml
            self._handles = self._visible(os.environ if environ is None else environ)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, there is no GPU to read
            self.close()

    @property
    def count(self) -> int:
        """How many are read."""
        return len(self._handles)

    def parts(self) -> Iterable[Callable[[], dict[str, float]]]:
        """Return the readings, each of which may fail alone."""
        return (self._read,) if self._handles else ()

    def close(self) -> None:
        """Let go of the driver."""
        self._handles = {}
        if self._nvml is not None:
            with suppress(self._nvml.NVMLError):
                self._nvml.nvmlShutdown()
            self._nvml = None

    def _visible(self, environ: Mapping[str, str]) -> dict[int, Any]:
        """Return the handles by number."""
        nvml = self._nvml
        chosen = environ.get("CUDA_VISIBLE_DEVICES")
        if chosen is None:
            numbers = range(nvml.nvmlDeviceGetCount())
            return {number: nvml.nvmlDeviceGetHandleByIndex(number) for number in numbers}
        handles: dict[int, Any] = {}
        for name in map(str.strip, chosen.split(",")):
            try:
                if name.isdigit():
                    handles[int(name)] = nvml.nvmlDeviceGetHandleByIndex(int(name))
                else:
                    handle = nvml.nvmlDeviceGetHandleByUUID(name)
                    handles[nvml.nvmlDeviceGetIndex(handle)] = handle
            except nvml.NVMLError:
                break  # CUDA, too, sees none from the first one on that is not there
        return handles

    def _read(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for number, handle in self._handles.items():
            for read in (self._memory, self._load, self._power, self._temperature):
                with suppress(self._nvml.NVMLError):  # not every model tells everything
                    for key, value in read(handle).items():
                        found[f"gpu_{number}_{key}"] = value
        return found

    def _memory(self, handle: object) -> dict[str, float]:
        memory = self._nvml.nvmlDeviceGetMemoryInfo(handle)
        return {
            "memory_usage_megabytes": memory.used / MEGABYTE,
            "memory_usage_percentage": 100 * memory.used / memory.total,
        }

    def _load(self, handle: object) -> dict[str, float]:
        rates = self._nvml.nvmlDeviceGetUtilizationRates(handle)
        return {"utilization_percentage": float(rates.gpu)}

    def _power(self, handle: object) -> dict[str, float]:
        watts = self._nvml.nvmlDeviceGetPowerUsage(handle) / 1000
        found = {"power_usage_watts": watts}
        with suppress(self._nvml.NVMLError):
            limit = self._nvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
            found["power_usage_percentage"] = 100 * watts / limit
        return found

    def _temperature(self, handle: object) -> dict[str, float]:
        sensor = self._nvml.NVML_TEMPERATURE_GPU
        return {"temperature_celsius": float(self._nvml.nvmlDeviceGetTemperature(handle, sensor))}
