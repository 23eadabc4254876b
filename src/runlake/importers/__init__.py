"""Runs of other trackers, brought into a lake: whole, once, and checked.

`import_from` reads a source of one kind and writes its runs into a lake, with their ids, names,
times, users and statuses, so that they look as if they had been logged here. It may be ended at any
instant and called again: what is there stays, what is not comes, and nothing comes twice. What a
lake does not hold as the tracker did is named in the report.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any, Final

from runlake import clock
from runlake._lazy import lazy, need
from runlake.errors import InvalidInputError
from runlake.importers.report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.importers import bring, outward
    from runlake.importers.bring import Progress
    from runlake.importers.source import Source
    from runlake.lake import Lake
else:
    bring = lazy("runlake.importers.bring")
    outward = lazy("runlake.importers.outward")

__all__ = ["KINDS", "Report", "bring_runs", "export_to", "import_from", "open_source"]

KINDS: Final = {
    "mlflow": "runlake.importers.mlflow",
    "wandb": "runlake.importers.wandb",
    "tensorboard": "runlake.importers.tensorboard",
    "neptune": "runlake.importers.neptune",
    "trackio": "runlake.importers.trackio",
    "csv": "runlake.importers.tables",
    "jsonl": "runlake.importers.tables",
}
"""What can be read, and the module that reads it: each has a function `open_source`."""
_OWN: Final = frozenset({"csv", "jsonl"})


def open_source(kind: str, source: str, **options: Any) -> Source:  # noqa: ANN401 - of each kind
    """Open a place that holds runs of another tracker; little of it is read yet.

    Args:
        kind: one of `KINDS`.
        source: a path, or what else the kind takes.
        options: of the kind.

    Returns:
        The source; close it.

    Raises:
        InvalidInputError: there is no such kind or option, or the place holds something else.
        NotFoundError: nothing is there.
        MissingDependencyError: reading it takes a package that is not installed.
    """
    if kind not in KINDS:
        message = f"there is no importer {kind!r}; there are {', '.join(KINDS)}."
        raise InvalidInputError(message)
    opener: Callable[..., Source] = need(KINDS[kind]).open_source
    known = {
        name: parameter
        for name, parameter in inspect.signature(opener).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name != "kind"
    }
    unknown = sorted(options.keys() - known.keys())
    if unknown:
        message = f"importing {kind} has no option {unknown[0]!r}; it has {', '.join(known)}."
        raise InvalidInputError(message)
    return opener(source, **({"kind": kind} if kind in _OWN else {}), **options)


def import_from(
    kind: str,
    source: str,
    lake: Lake,
    *,
    artifacts: bool = True,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,  # noqa: ANN401 - of each kind
) -> Report:
    """Bring runs of another tracker into a lake.

    Args:
        kind: one of `KINDS`.
        source: a path, or what else the kind takes: of `mlflow` a folder `mlruns`, a database's
            URL, or the address of a tracking server.
        lake: where they go.
        artifacts: whether their files come too.
        progress: called after each run with how far it is.
        options: of the kind.

    Returns:
        What was done, what is not as it was, and what went wrong.

    Raises:
        InvalidInputError: there is no such kind or option, or the place holds something else.
        NotFoundError: nothing is there.
        MissingDependencyError: reading it takes a package that is not installed.
        StateError: the lake is read-only.
        StorageError: the store refused.

    Example:
        >>> import runlake
        >>> lake = runlake.open("memory://came")
        >>> report = import_from("csv", "docs/data/runs.csv", lake)  # doctest: +SKIP
        >>> report.brought, report.is_exact  # doctest: +SKIP
        (3, True)
    """
    opened = open_source(kind, source, **options)
    try:
        return bring_runs(opened, lake, artifacts=artifacts, progress=progress)
    finally:
        opened.close()


def export_to(kind: str, uri: str, lake: Lake, **options: Any) -> Report:  # noqa: ANN401 - of each
    """Write runs of a lake into another tracker; see `runlake.importers.outward.export_to`.

    Args:
        kind: `mlflow`.
        uri: what MLflow calls a tracking URI.
        lake: where the runs are.
        options: `run_ids`, `experiments`, `artifacts`, `progress`.

    Returns:
        What was done, what is not as it was, and what went wrong.

    Raises:
        InvalidInputError: there is no such kind, or runs and experiments were given.
        NotFoundError: there is no such run or experiment.
        MissingDependencyError: MLflow is not installed.
        StorageError: the lake cannot be read.
    """
    return outward.export_to(kind, uri, lake, **options)


def bring_runs(
    source: Source,
    lake: Lake,
    *,
    artifacts: bool = True,
    progress: Callable[[Progress], None] | None = None,
) -> Report:
    """Bring the runs of a source, which may be one of your own: `runlake.importers.source`.

    Args:
        source: where they come from; it stays open.
        lake: where they go.
        artifacts: whether their files come too.
        progress: called after each run with how far it is.

    Returns:
        As `import_from`.

    Raises:
        SourceError: the source cannot be read.
        StateError: the lake is read-only.
        StorageError: the store refused.
    """
    began_s = clock.monotonic_s()
    report = Report(source.kind, source.name, lake.url)
    work = bring.Import(
        source, lake, report, artifacts=artifacts, progress=progress or (lambda _: None)
    )
    work.run()
    source.finish(lake, report, artifacts=artifacts)
    lake.flush()
    lake.refresh()
    report.seconds = clock.monotonic_s() - began_s
    return report
