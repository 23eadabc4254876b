"""System metrics: what a machine, a process and its GPUs do while a run is open.

`Sampler` is the companion of one run; one thread of the process serves all of them. Keys begin
with `system/` and are MLflow's where MLflow has them.
"""

from __future__ import annotations

from runlake.system.sampler import Sampler

__all__ = ["Sampler"]
