"""A driver library for the real `pynvml`: C functions with NVML's signatures and error codes.

`pynvml` finds functions by name in a library; here they are made of Python functions with the
very argument types of `nvml.h`, so that what calls `pynvml` runs as it does on a machine with GPUs.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_uint, c_void_p
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pynvml

if TYPE_CHECKING:
    from collections.abc import Callable

_OK, _INVALID, _UNSUPPORTED, _NOT_FOUND = 0, 2, 3, 6
_UNINITIALIZED = 1


@dataclass
class Gpu:
    """One GPU as the driver knows it.

    Attributes:
        uuid: its name for ever.
        silent: the functions that it does not support.
    """

    uuid: str
    used: int = 4_000_000_000
    total: int = 16_000_000_000
    load: int = 75
    milliwatts: int = 150_000
    limit_milliwatts: int = 300_000
    celsius: int = 61
    silent: set[str] = field(default_factory=set)


class Driver:
    """What stands for `libnvidia-ml.so.1`.

    Attributes:
        users: how often it was initialised and not shut down.
    """

    def __init__(self, gpus: list[Gpu], *, init_error: int = _OK) -> None:
        """Know some GPUs.

        Args:
            gpus: by number.
            init_error: what `nvmlInit` returns.
        """
        self.gpus = gpus
        self.users = 0
        self._init_error = init_error
        self._kept: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - a function of C
        """Return a function as a library of C does."""
        if name.startswith("_") or not hasattr(type(self), f"c_{name}"):
            raise AttributeError(name)
        types = _TYPES[name]
        if name not in self._kept:
            self._kept[name] = ctypes.CFUNCTYPE(c_int, *types)(getattr(self, f"c_{name}"))
        return self._kept[name]

    def c_nvmlInitWithFlags(self, _flags: int) -> int:  # noqa: N802 - NVML's name
        if self._init_error == _OK:
            self.users += 1
        return self._init_error

    def c_nvmlShutdown(self) -> int:  # noqa: N802
        self.users -= 1
        return _OK

    def c_nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: ANN401, N802
        return self._give(count, len(self.gpus))

    def c_nvmlDeviceGetHandleByIndex_v2(self, number: int, device: Any) -> int:  # noqa: ANN401, N802
        if number >= len(self.gpus):
            return _INVALID
        return self._give_handle(device, number)

    def c_nvmlDeviceGetHandleByUUID(self, uuid: bytes, device: Any) -> int:  # noqa: ANN401, N802
        for number, gpu in enumerate(self.gpus):
            if gpu.uuid == uuid.decode():
                return self._give_handle(device, number)
        return _NOT_FOUND

    def c_nvmlDeviceGetIndex(self, device: int, number: Any) -> int:  # noqa: ANN401, N802
        return self._give(number, device - 1)

    def c_nvmlDeviceGetMemoryInfo(self, device: int, memory: Any) -> int:  # noqa: ANN401, N802
        def fill(gpu: Gpu) -> None:
            told = memory.contents
            told.total, told.used, told.free = gpu.total, gpu.used, gpu.total - gpu.used

        return self._tell("nvmlDeviceGetMemoryInfo", device, fill)

    def c_nvmlDeviceGetUtilizationRates(self, device: int, rates: Any) -> int:  # noqa: ANN401, N802
        def fill(gpu: Gpu) -> None:
            rates.contents.gpu, rates.contents.memory = gpu.load, 10

        return self._tell("nvmlDeviceGetUtilizationRates", device, fill)

    def c_nvmlDeviceGetPowerUsage(self, device: int, power: Any) -> int:  # noqa: ANN401, N802
        return self._tell(
            "nvmlDeviceGetPowerUsage", device, lambda gpu: self._give(power, gpu.milliwatts)
        )

    def c_nvmlDeviceGetEnforcedPowerLimit(self, device: int, limit: Any) -> int:  # noqa: ANN401, N802
        return self._tell(
            "nvmlDeviceGetEnforcedPowerLimit",
            device,
            lambda gpu: self._give(limit, gpu.limit_milliwatts),
        )

    def c_nvmlDeviceGetTemperature(self, device: int, sensor: int, told: Any) -> int:  # noqa: ANN401, N802
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._tell(
            "nvmlDeviceGetTemperature", device, lambda gpu: self._give(told, gpu.celsius)
        )

    def _tell(self, name: str, device: int, tell: Callable[[Gpu], object]) -> int:
        if not self.users:
            return _UNINITIALIZED
        gpu = self.gpus[device - 1]
        if name in gpu.silent:
            return _UNSUPPORTED
        tell(gpu)
        return _OK

    def _give_handle(self, device: Any, number: int) -> int:  # noqa: ANN401 - as below
        # A handle is a pointer, and not null.
        return self._give(ctypes.cast(device, POINTER(c_void_p)), number + 1)

    @staticmethod
    def _give(place: Any, value: int) -> int:  # noqa: ANN401 - a pointer of C
        place[0] = value
        return _OK


_TYPES: dict[str, tuple[Any, ...]] = {
    "nvmlInitWithFlags": (c_uint,),
    "nvmlShutdown": (),
    "nvmlDeviceGetCount_v2": (POINTER(c_uint),),
    "nvmlDeviceGetHandleByIndex_v2": (c_uint, POINTER(pynvml.c_nvmlDevice_t)),
    "nvmlDeviceGetHandleByUUID": (c_char_p, POINTER(pynvml.c_nvmlDevice_t)),
    "nvmlDeviceGetIndex": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetMemoryInfo": (c_void_p, POINTER(pynvml.c_nvmlMemory_t)),
    "nvmlDeviceGetUtilizationRates": (c_void_p, POINTER(pynvml.c_nvmlUtilization_t)),
    "nvmlDeviceGetPowerUsage": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetEnforcedPowerLimit": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetTemperature": (c_void_p, c_uint, POINTER(c_uint)),
}
