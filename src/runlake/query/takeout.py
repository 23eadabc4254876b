"""What leaves a lake as files: a table, a run with everything of it, or the whole lake.

Rows go from DuckDB to the file a few MiB at a time, so that an export may be larger than the
memory. Every export comes from one snapshot.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import IO, TYPE_CHECKING, Any, Final

from runlake.errors import InvalidInputError, StorageError
from runlake.query import entities
from runlake.query.cells import iso, plain
from runlake.query.data import read_runs
from runlake.query.formats import SUFFIXES, form_of, write
from runlake.query.listing import describe_run
from runlake.query.outlet import Outlet
from runlake.query.views import VIEWS
from runlake.storage import layout, links

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from runlake.query.engine import Query
    from runlake.query.formats import Form
    from runlake.storage.filesystem import Filesystem

# One sentence for each view, for the people who find the files of a lake.
TABLES: Final = {
    "experiments": "The experiments.",
    "runs": "One row for each run, deleted ones too; `metrics` holds last values.",
    "params": "The params of runs; `number` is the value where it is a number.",
    "tags": "The tags of runs.",
    "metrics": "Every point of every metric, as it was logged.",
    "metric_summary": "Each metric of each run: its last, first, least and greatest point.",
    "inputs": "The data sets that runs used.",
    "artifacts": "The files of runs: where they lie below `artifacts/`, and their digests.",
    "events": "Everything else that was logged, in its raw form.",
    "media": "Images, figures, tables, sounds and pages among the artifacts, by key and step.",
    "histograms": "Distributions by key and step: `counts[i]` values lay from `edges[i]` on.",
    "console": "What runs wrote to stdout and stderr, line by line.",
    "alerts": "What runs called for attention for.",
    "provenance": "What ran where: code, command, machine, packages.",
    "logged_models": "The models that runs logged, with params, metrics and tags.",
    "registered_models": "The models of the registry.",
    "model_versions": "Their versions, with stages, aliases and tags.",
    "model_aliases": "Which version each alias means.",
    "registry_events": "Who changed what in the registry, when and why; `about` is JSON.",
}
_NAME: Final = re.compile(r"\s*\w+\s*")
_README: Final = """\
# An export of {url}

Written by runlake from one snapshot, taken at {taken}. Each table is one file.

{tables}

Times are in UTC, `duration` is in seconds, `size` in bytes. {format_note}
{artifacts}
"""
_NOTES: Final = {
    "parquet": "Parquet keeps all types; maps are Parquet's maps.",
    "arrow": "These are Arrow IPC files; they keep all types.",
    "csv": 'Null is empty and an empty text is `""`; a number may be `NaN`, `inf` or `-inf`; '
    "times are ISO 8601, maps are JSON.",
    "jsonl": 'Each line is a JSON object; `"NaN"`, `"Infinity"` and `"-Infinity"` are the '
    "numbers that JSON lacks; times are ISO 8601.",
}


@dataclass(frozen=True, slots=True)
class Export:
    """What an export wrote.

    Attributes:
        paths: the files, as local paths or URLs.
        row_count: rows in all of them.
        size_bytes: length of all of them.
    """

    paths: tuple[str, ...]
    row_count: int
    size_bytes: int


class Takeout:
    """One export: what, where to and how; settled before anything is read."""

    def __init__(
        self,
        outlet: Outlet | IO[bytes],
        *,
        what: str | None,
        form: str | None,
        run_id: str | None,
        artifacts: bool | None,
    ) -> None:
        """Check that these go together.

        Args:
            outlet: where to; a stream stays open.
            what: a view, or a statement that reads; None means everything, as a folder.
            form: the format; None goes by the suffix, and in a folder is Parquet.
            run_id: only this run.
            artifacts: whether files of runs are copied; None means of one run, not of all.

        Raises:
            InvalidInputError: they do not.
        """
        self._outlet = outlet
        self._what = what
        self._run_id = run_id
        self._artifacts = run_id is not None if artifacts is None else artifacts
        name = outlet.name if isinstance(outlet, Outlet) else ""
        if what is not None:
            if artifacts is not None:
                message = "artifacts go with a whole run or lake: leave `what` out."
                raise InvalidInputError(message)
            self._form = form_of(name, form)
            return
        if not isinstance(outlet, Outlet) or any(map(name.lower().endswith, SUFFIXES)):
            views = ", ".join(map(repr, VIEWS))
            raise InvalidInputError(
                f"say what goes into this one file: what={views}, or a SELECT; everything goes "
                "into a folder, or a file with the suffix .zip."
            )
        self._form = form_of("", form or "parquet")

    def write(self, query: Query, lake: Filesystem) -> Export:
        """Write it.

        Args:
            query: the snapshot.
            lake: where the files of runs are.

        Returns:
            What was written.

        Raises:
            AlreadyExistsError: the folder is there and not empty.
            InvalidInputError: there is no such view, or DuckDB refuses the statement.
            NotFoundError: there is no such run.
            StorageError: the target cannot be written, or a file of the lake cannot be read.
        """
        outlet = self._outlet
        if not isinstance(outlet, Outlet):
            return Export((), self._stream(query, outlet), 0)
        if self._what is not None:
            with outlet.file() as sink:
                row_count = self._table(query, sink)
        else:
            files = lake if self._artifacts else None
            with outlet.folder() as folder:
                if self._run_id is None:
                    row_count = _write_lake(query, folder, form=self._form, lake=files)
                else:
                    row_count = _write_run(
                        query, self._run_id, folder=folder, form=self._form, lake=files
                    )
        return Export(outlet.paths, row_count, outlet.size_bytes)

    def _stream(self, query: Query, sink: IO[bytes]) -> int:
        try:
            return self._table(query, sink)
        except FileNotFoundError as error:
            # What went into the stream cannot be taken back, so it cannot be tried again.
            message = f"a file of the snapshot went away meanwhile; export again. {error}"
            raise StorageError(message, url=query.tables.root_url) from error

    def _table(self, query: Query, sink: IO[bytes]) -> int:
        return _write_table(query, str(self._what), sink=sink, form=self._form, run_id=self._run_id)


def _write_run(
    query: Query, run_id: str, *, folder: Path, form: Form, lake: Filesystem | None
) -> int:
    """Fill a folder with `run.json`, the run's metrics and events, and its artifacts."""
    about = plain(describe_run(query, run_id))
    row_count = 0
    for view in ("metrics", "events"):
        row_count += _put_table(query, view, folder=folder, form=form, run_id=run_id)
    if lake is not None:
        prefix = layout.artifacts(about["experiment_id"], run_id)
        _copy_artifacts(lake, folder, prefix=prefix, runs={run_id})
    text = json.dumps(about, ensure_ascii=False, indent=2)
    (folder / "run.json").write_text(text + "\n", "utf-8")
    return row_count


def _write_lake(query: Query, folder: Path, *, form: Form, lake: Filesystem | None) -> int:
    """Fill a folder with every view, and a `README.md` that explains all columns."""
    counts = {view: _put_table(query, view, folder=folder, form=form) for view in VIEWS}
    if lake is not None:
        runs = {str(run_id) for run_id in read_runs(query)["run_id"].to_pylist()}
        _copy_artifacts(lake, folder, prefix="artifacts/", runs=runs)
    readme = _readme(query, counts, form=form, has_artifacts=lake is not None)
    (folder / "README.md").write_text(readme, "utf-8")
    return sum(counts.values())


def _write_table(
    query: Query, what: str, *, sink: IO[bytes], form: Form, run_id: str | None = None
) -> int:
    statement, params = _statement(query, what, run_id)
    with query.stream(statement, params) as (columns, batches):
        return write(batches, columns, sink=sink, form=form)


def _statement(query: Query, what: str, run_id: str | None) -> tuple[str, list[Any] | None]:
    """Return the statement behind a view's name, or the statement itself."""
    view = what.strip().lower()
    if view not in VIEWS:
        if _NAME.fullmatch(what):
            raise InvalidInputError(f"there is no view {what!r}; there are {', '.join(VIEWS)}.")
        if run_id is not None:
            message = "run_id goes with a view; a statement says itself which runs it means."
            raise InvalidInputError(message)
        return what, None
    if run_id is None:
        return f"FROM {view}", None
    if "run_id" not in {name for name, _ in VIEWS[view]}:
        raise InvalidInputError(f"the view {view!r} has no run_id to choose rows by.")
    entities.get_run(query, run_id)
    order = "ORDER BY key, step, timestamp" if view == "metrics" else ""
    return f"FROM {view} WHERE run_id = $1 {order}", [run_id]


def _put_table(
    query: Query, view: str, *, folder: Path, form: Form, run_id: str | None = None
) -> int:
    with (folder / f"{view}.{form.name}").open("xb") as sink:
        return _write_table(query, view, sink=sink, form=form, run_id=run_id)


def _copy_artifacts(lake: Filesystem, folder: Path, *, prefix: str, runs: Collection[str]) -> None:
    """Copy the files below a prefix that belong to these runs; what links put there does not."""
    places = ((entry.key, entry.key.split("/", 3)) for entry in lake.list(prefix))
    keys = [key for key, (_, _, run_id, _) in places if run_id in runs]
    out = set(links.led_out(lake, keys))
    for key in keys:
        if key not in out:
            lake.download(key, folder / "artifacts" / key.removeprefix(prefix))


def _readme(query: Query, counts: dict[str, int], *, form: Form, has_artifacts: bool) -> str:
    """Say what each file holds, column by column."""
    tables = []
    for view, columns in VIEWS.items():
        count = counts[view]
        rows = f"{count:,} row{'' if count == 1 else 's'}"
        lines = "\n".join(f"| `{name}` | {kind} |" for name, kind in columns)
        tables.append(
            f"## `{view}.{form.name}`: {rows}\n\n{TABLES[view]}\n\n"
            f"| column | type |\n| --- | --- |\n{lines}\n"
        )
    artifacts = (
        "The files of runs lie below `artifacts/<experiment_id>/<run_id>/`."
        if has_artifacts
        else "The files of runs are not here; they lie as they are below "
        f"`{query.tables.root_url}/artifacts/<experiment_id>/<run_id>/`."
    )
    taken = iso(datetime.fromtimestamp(query.tables.now_us / 1e6, UTC))
    return _README.format(
        url=query.tables.root_url,
        taken=taken,
        tables="\n".join(tables),
        format_note=_NOTES[form.name],
        artifacts=artifacts,
    )
