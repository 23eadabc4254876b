from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pynvml
from mlflow.system_metrics.metrics import gpu_monitor
from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from runlake.system.gpu import Gpus
from runlake.system.machine import Machine
from tests.system.nvml import Driver, Gpu

if TYPE_CHECKING:
    import pytest


def test_what_mlflow_tells_is_told_under_the_same_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pynvml, "nvmlLib", Driver([Gpu("GPU-a"), Gpu("GPU-b")]))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setattr(gpu_monitor, "pynvml", pynvml, raising=False)
    theirs: dict[str, float] = {}
    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor(), gpu_monitor.GPUMonitor()]
    for monitor in monitors:
        monitor.collect_metrics()
        theirs |= monitor.aggregate_metrics()
    machine, gpus = Machine(), Gpus({})
    ours = {
        key: value for part in (*machine.parts(), *gpus.parts()) for key, value in part().items()
    }
    assert theirs.keys() - ours.keys() <= {"cpu_utilization_percentage"}  # no time has passed
    for key in theirs:
        if key.startswith("gpu_"):
            assert abs(ours[key] - theirs[key]) < 0.1, key
