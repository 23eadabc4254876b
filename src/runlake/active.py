"""The active run and the current lake: what the module functions act on.

The only state is the current lake, the current experiment and the stack of active runs, a
context variable. A thread that has not started a run of its own logs to the run that its
process started last.
"""

from __future__ import annotations

import os
import threading
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runlake.errors import StateError
from runlake.lake import Lake, open_lake
from runlake.schema import FINISHED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from runlake.run import Run

_stack: ContextVar[tuple[Run, ...]] = ContextVar("runlake_active_runs", default=())


@dataclass(slots=True)
class Current:
    """What the module functions act on."""

    lock: threading.RLock = field(default_factory=threading.RLock)
    url: str | None = None
    lake: Lake | None = None
    experiment_id: str | None = None
    runs: list[Run] = field(default_factory=list)
    last: Run | None = None
    resumed: bool = False


current = Current()


def set_tracking_uri(uri: str | Path) -> None:
    """Choose the lake that the module functions act on.

    Args:
        uri: any fsspec URL or path; a server's address is refused.

    Raises:
        InvalidInputError: the scheme is unknown, or the address is a server's.
        StateError: a run is active in another lake.
    """
    with current.lock:
        active = active_run()
        if active is not None and os.fspath(uri) != current.url:
            raise StateError(f"run {active.run_id} is active; end it before changing the lake.")
        lake = open_lake(uri)
        old, current.lake = current.lake, lake
        current.url, current.experiment_id = os.fspath(uri), None
    if old is not None:
        old.close()


def get_tracking_uri() -> str:
    """Return the URL of the lake that the module functions act on."""
    return current_lake().url


def current_lake() -> Lake:
    """Return the lake that the module functions act on, opened at first use.

    Raises:
        InvalidInputError: the setting names no lake that can be opened.
    """
    with current.lock:
        if current.lake is None:
            current.lake = open_lake(current.url)
        return current.lake


def _after_fork_in_child() -> None:
    """Take a new lock: another thread of the parent may have held the old one."""
    current.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)


def forget() -> None:
    """Close the current lake and begin anew, as a fresh process does; tests use it."""
    global current  # noqa: PLW0603 - the module's one state
    for run in reversed(current.runs):
        run.finish()
    if current.lake is not None:
        current.lake.close()
    current = Current()
    _stack.set(())


# Runs.


def start_run(  # noqa: PLR0913 - MLflow's signature
    run_id: str | None = None,
    experiment_id: str | None = None,
    run_name: str | None = None,
    nested: bool = False,  # noqa: FBT001, FBT002 - MLflow's signature
    parent_run_id: str | None = None,
    tags: Mapping[str, object] | None = None,
    description: str | None = None,
    log_system_metrics: bool | None = None,  # noqa: FBT001 - as above
    *,
    log_console: bool | None = None,
) -> Run:
    """Begin a run, resume one, or join one that other processes write; it becomes active.

    Args:
        run_id: an existing run to go on with; an unknown id makes the run.
        experiment_id: its experiment; None takes `set_experiment`'s, else `Default`.
        run_name: chosen by a person; None derives one from the id.
        nested: begin below the active run.
        parent_run_id: begin below this run.
        tags: its first tags.
        description: kept as the tag `mlflow.note.content`.
        log_system_metrics: sample the machine while it is open; None takes the setting.
        log_console: keep what this process prints meanwhile; None takes the setting.

    Returns:
        The run; as a context manager it ends with its block.

    Raises:
        StateError: a run is active and `nested` is False.
        InvalidInputError: a name, id or tag is wrong; nothing was written.
    """
    stack = _live_stack()
    if stack and not nested:
        raise StateError(
            f"run {stack[-1].run_id} is active already. End it with runlake.end_run(), or begin "
            "below it: runlake.start_run(nested=True)."
        )
    lake = current_lake()
    if run_id is None and not current.resumed and lake.settings.run_id is not None:
        current.resumed, run_id = True, lake.settings.run_id
    if parent_run_id is None and nested and stack:
        parent_run_id = stack[-1].run_id
    run = lake.start_run(
        run_name,
        experiment_id=current.experiment_id if experiment_id is None else experiment_id,
        run_id=run_id,
        parent_run_id=parent_run_id,
        tags=tags,
        description=description,
        log_system_metrics=log_system_metrics,
        log_console=log_console,
    )
    _stack.set((*stack, run))
    with current.lock:
        current.runs.append(run)
        current.last = run
    return run


def end_run(status: str = FINISHED) -> None:
    """End the active run; without one, nothing happens.

    Args:
        status: FINISHED, FAILED or KILLED.

    Raises:
        InvalidInputError: there is no such status.
    """
    run = active_run()
    if run is not None:
        run.finish(status)


def active_run() -> Run | None:
    """Return the run that log calls go to, None if there is none."""
    stack = _live_stack()
    if stack:
        return stack[-1]
    runs = current.runs
    if not runs:
        return None
    with current.lock:
        current.runs[:] = [run for run in runs if run.is_open]
        return current.runs[-1] if current.runs else None


def last_active_run() -> Run | None:
    """Return the active run, else the one that this process started last."""
    return active_run() or current.last


def _live_stack() -> tuple[Run, ...]:
    """Return this context's active runs, those that have ended left out."""
    stack = _stack.get()
    if stack and not stack[-1].is_open:
        stack = tuple(run for run in stack if run.is_open)
        _stack.set(stack)
    return stack


def the_run() -> Run:
    """Return the active run; open one where there is none, as MLflow does."""
    stack = _stack.get()
    if stack and stack[-1].is_open:
        return stack[-1]
    return active_run() or start_run()
