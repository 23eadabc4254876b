"""What runs beside a run and ends with it: samplers, captures, collectors.

A companion is begun when the run is, in the process that begins it, and ended by `Run.finish`
before the run's last row. None of them ever makes `start_run` or `finish` fail: what goes wrong
is told as a warning. A forked child has no companions: threads do not survive a fork, and what
the child prints is its own; a run that the child begins gets companions of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake import provenance
from runlake._lazy import lazy
from runlake.writing.notices import tell

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake import console, system
    from runlake.run import Companion, Run
    from runlake.settings import Settings
else:  # most runs want neither
    console = lazy("runlake.console")
    system = lazy("runlake.system")


def begin(
    run: Run,
    settings: Settings,
    *,
    log_system_metrics: bool | None = None,
    log_console: bool | None = None,
) -> None:
    """Begin what is to run beside a run.

    Args:
        run: has just begun in this process.
        settings: of its lake; decide where an argument is None.
        log_system_metrics: sample the machine; None takes the setting `system_metrics`.
        log_console: keep what is printed; None takes the setting `console`.
    """
    if settings.is_disabled:
        return
    provenance.begin(run, settings)
    log = run._log  # noqa: SLF001 - companions write into the run that they accompany
    wants_system = settings.system_metrics if log_system_metrics is None else log_system_metrics
    if wants_system:
        _begin(run, "system metrics", lambda: system.Sampler(log, settings))
    wants_console = settings.console if log_console is None else log_console
    if wants_console:
        _begin(run, "the console", lambda: console.Console(log))


def _begin(run: Run, what: str, make: Callable[[], Companion]) -> None:
    try:
        run._accompany(make())  # noqa: SLF001 - as above
    except Exception as error:  # noqa: BLE001 - the run goes on without
        tell(f"{what} of run {run.run_id} cannot be logged: {type(error).__name__}: {error}.")
