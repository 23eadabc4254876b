"""How a run begins: who, where, from what, and the rows that say so."""

from __future__ import annotations

import getpass
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from runlake import clock, ids, run_names, schema
from runlake.writing import values

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.writing.events import Row

_PARENT_TAG: Final = "mlflow.parentRunId"
_RANK_VARIABLES: Final = ("RANK", "SLURM_PROCID", "PMI_RANK", "OMPI_COMM_WORLD_RANK")


@dataclass(frozen=True, slots=True)
class LiveInfo:
    """What is fixed about a run while it is written, with MLflow's names.

    Attributes:
        run_id: 32 lower-case hex digits, or what the caller gave.
        experiment_id: the experiment.
        run_name: as chosen, else derived from the id.
        status: RUNNING, or how it ended.
        start_time: milliseconds since 1970.
        artifact_uri: where its artifacts lie.
    """

    run_id: str
    experiment_id: str
    run_name: str
    status: str
    start_time: int
    artifact_uri: str


@dataclass(frozen=True, slots=True)
class RunPlan:
    """How a run begins.

    Attributes:
        run_id: of the run; an unknown id makes the run.
        experiment_id: where it lies.
        experiment_name: that experiment's name.
        run_name: chosen by a person, None for a derived one.
        parent_run_id: the run that it is nested in.
        start_us: microseconds since 1970.
        is_joined: the id was given: others may write the run as well, or have done so.
    """

    run_id: str
    experiment_id: str
    experiment_name: str
    run_name: str | None
    parent_run_id: str | None
    start_us: int
    is_joined: bool = False


def new_run_id() -> str:
    """Return an id for a run that begins now."""
    return ids.new_run_id(clock.now_us())


def opening_rows(plan: RunPlan) -> list[Row]:
    """Return what every writer that joins a run says first, the status RUNNING included."""
    run_id = plan.run_id
    rows: list[Row] = [
        (run_id, schema.RUN, schema.RUN_START, float(plan.start_us), None),
        (run_id, schema.RUN, schema.RUN_AUTO_NAME, None, run_names.auto_name(run_id)),
        (run_id, schema.RUN, schema.RUN_USER, None, user()),
        (run_id, schema.RUN, schema.RUN_SOURCE, None, _source()),
        (run_id, schema.STATUS, "", float(clock.now_us()), schema.RUNNING),
    ]
    if plan.run_name is not None:
        name = values.text("run", "name", plan.run_name)
        rows.append((run_id, schema.RUN, schema.RUN_NAME, None, name))
    if plan.parent_run_id is not None:
        rows.append((run_id, schema.RUN, schema.RUN_PARENT, None, plan.parent_run_id))
        # Scripts written for MLflow look for the parent in a tag.
        rows.append((run_id, schema.TAG, _PARENT_TAG, None, plan.parent_run_id))
    rank = own_rank()
    if rank is not None:
        rows.append((run_id, schema.RUN, schema.RUN_RANK, float(rank), str(rank)))
    return rows


@lru_cache(maxsize=1)
def user() -> str:
    """Return who runs this process: the name, else the number, else nothing."""
    try:
        return values.printable(getpass.getuser())
    except (OSError, KeyError, ImportError):
        return str(os.getuid()) if hasattr(os, "getuid") else ""


def _source() -> str:
    """Return the script that runs, empty in a notebook or a prompt."""
    main = sys.modules.get("__main__")
    return values.printable(str(getattr(main, "__file__", None) or ""))


def own_rank(environ: Mapping[str, str] | None = None) -> int | None:
    """Return the rank of this process among those of one job, None if nothing tells it.

    Args:
        environ: the environment; None means the process's own.
    """
    environ = os.environ if environ is None else environ
    for variable in _RANK_VARIABLES:
        text = environ.get(variable, "")
        if text.isdigit():
            return int(text)
    return None
