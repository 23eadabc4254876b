from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pynvml
import pytest

from runlake.system.gpu import Gpus
from runlake.system.sampler import own_readers
from tests.system.nvml import Driver, Gpu

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Driver]:
    """Give this machine GPUs."""

    def make(*gpus: Gpu, init_error: int = 0) -> Driver:
        driver = Driver(list(gpus), init_error=init_error)
        monkeypatch.setattr(pynvml, "nvmlLib", driver)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        return driver

    return make


def read(gpus: Gpus) -> dict[str, float]:
    """Return one reading."""
    return {key: value for part in gpus.parts() for key, value in part().items()}


def test_a_gpu_is_told_of_in_mlflows_words(install: Callable[..., Driver]) -> None:
    install(Gpu("GPU-a"))
    assert read(Gpus({})) == {
        "gpu_0_memory_usage_megabytes": 4000,
        "gpu_0_memory_usage_percentage": 25,
        "gpu_0_utilization_percentage": 75,
        "gpu_0_power_usage_watts": 150,
        "gpu_0_power_usage_percentage": 50,
        "gpu_0_temperature_celsius": 61,
    }


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        (None, {0, 1, 2}),
        ("2,0", {0, 2}),
        ("GPU-b", {1}),
        ("1, GPU-c", {1, 2}),
        ("0,9,1", {0}),
        ("-1", set()),
        ("", set()),
        ("none", set()),
    ],
)
def test_only_the_gpus_that_the_process_sees_are_read(
    install: Callable[..., Driver], visible: str | None, numbers: set[int]
) -> None:
    install(Gpu("GPU-a"), Gpu("GPU-b"), Gpu("GPU-c"))
    gpus = Gpus({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})
    assert {int(key.split("_")[1]) for key in read(gpus)} == numbers
    assert gpus.count == len(numbers)


@pytest.mark.parametrize(
    ("silent", "missing"),
    [
        ("nvmlDeviceGetUtilizationRates", {"utilization_percentage"}),
        ("nvmlDeviceGetPowerUsage", {"power_usage_watts", "power_usage_percentage"}),
        ("nvmlDeviceGetEnforcedPowerLimit", {"power_usage_percentage"}),
        ("nvmlDeviceGetTemperature", {"temperature_celsius"}),
        (
            "nvmlDeviceGetMemoryInfo",
            {"memory_usage_megabytes", "memory_usage_percentage"},
        ),
    ],
)
def test_what_one_gpu_does_not_tell_is_left_out_and_the_rest_is_there(
    install: Callable[..., Driver], silent: str, missing: set[str]
) -> None:
    install(Gpu("GPU-a", silent={silent}), Gpu("GPU-b"))
    found = read(Gpus({}))
    whole = {key.removeprefix("gpu_1_") for key in found if key.startswith("gpu_1_")}
    partial = {key.removeprefix("gpu_0_") for key in found if key.startswith("gpu_0_")}
    assert whole - partial == missing


@pytest.mark.parametrize(
    ("environ", "read_by_it"),
    [
        ({"LOCAL_RANK": "0"}, {0, 1}),
        ({"LOCAL_RANK": "1"}, set()),
        ({"LOCAL_RANK": "1", "CUDA_VISIBLE_DEVICES": "1"}, {1}),
    ],
)
def test_each_gpu_is_read_by_the_rank_that_has_it_alone_or_by_the_first(
    install: Callable[..., Driver], environ: dict[str, str], read_by_it: set[int]
) -> None:
    driver = install(Gpu("GPU-a"), Gpu("GPU-b"))
    readers = own_readers(environ)
    found = {key for reader in readers for part in reader.parts() for key in part()}
    assert {int(key.split("_")[1]) for key in found if key.startswith("gpu_")} == read_by_it
    for reader in readers:
        reader.close()
    assert driver.users == 0


def test_the_driver_is_let_go(install: Callable[..., Driver]) -> None:
    driver = install(Gpu("GPU-a"))
    gpus = Gpus({})
    assert driver.users == 1
    gpus.close()
    gpus.close()
    assert (driver.users, gpus.count, read(gpus)) == (0, 0, {})


def test_a_driver_that_does_not_start_is_no_gpu(install: Callable[..., Driver]) -> None:
    install(Gpu("GPU-a"), init_error=pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
    assert read(Gpus({})) == {}


def test_a_machine_without_a_driver_has_no_gpu() -> None:
    if pynvml.nvmlLib is not None:
        pytest.skip("this machine has a driver")
    assert read(Gpus({})) == {}


def test_without_the_package_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    gpus = Gpus({})
    assert read(gpus) == {}
    gpus.close()
