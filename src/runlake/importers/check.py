"""Read back what came, and compare it with what was read: points, facts, files.

Points are compared by counts, and by a checksum of their content that knows no order, so one
point too few, too many or off by a bit shows. What somebody changed in the lake since an earlier
import is left as it is, and is no difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from runlake import clock, schema
from runlake._lazy import lazy
from runlake.importers.source import Note
from runlake.importers.tally import Tally, joined, tallies
from runlake.questions import ask
from runlake.writing.bulk import BulkRow

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.importers.bring import Prepared
    from runlake.importers.report import Report
    from runlake.lake import Lake
    from runlake.query import imported
    from runlake.query.engine import Query
else:
    imported = lazy("runlake.query.imported")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

# Kinds of which a later import writes only what is other than the one before said.
_FACTS: Final = frozenset(
    {
        schema.RUN,
        schema.PARAM,
        schema.TAG,
        schema.INPUT,
        schema.DATASET,
        schema.MODEL,
        schema.MODEL_STATUS,
        schema.MODEL_PARAM,
        schema.MODEL_TAG,
        schema.MODEL_INPUT,
        schema.OUTPUT,
    }
)
_MARKS: Final = frozenset({schema.DELETE, schema.RESTORE})
_NAMED: Final = 3


def only(table: pa.Table, keys: Collection[str]) -> pa.Table:
    """Return the points of some metrics.

    Args:
        table: with a column `key`.
        keys: which.
    """
    wanted: Any = pa.array(sorted(keys), pa.string())
    return table.filter(pc.is_in(table["key"].cast(pa.string()), value_set=wanted))


def check(
    lake: Lake,
    group: Sequence[Prepared],
    report: Report,
    *,
    said: Sequence[BulkRow] | None = None,
) -> None:
    """Compare runs that came with what the lake says of them.

    Args:
        lake: where they are.
        group: the runs.
        report: takes every difference.
        said: of one run that came before, what was said of it now; only that is compared.
    """
    lake.refresh()
    ask(lake, lambda query: _check(query, group, report, said))


def _check(
    query: Query, group: Sequence[Prepared], report: Report, said: Sequence[BulkRow] | None
) -> None:
    wanted = [each.run_id for each in group]
    points = _tallies(query, wanted)
    facts = imported.facts(query, wanted)
    files = imported.artifacts(query, wanted)
    for each in group:
        found = [
            *_points(each, points.get(each.run_id, {}), report, is_new=said is None),
            *_facts(each, facts.get(each.run_id), said),
            *_files(each, files),
        ]
        report.add(checked=1, failed=int(bool(found)))
        for difference in found[:_NAMED]:
            report.fail(f"run {each.run.source_id}: {difference}")
        if len(found) > _NAMED:
            report.fail(f"run {each.run.source_id}: {len(found) - _NAMED} more differences.")


def _tallies(query: Query, wanted: Sequence[str]) -> dict[str, dict[str, Tally]]:
    """Count the points that the lake has of some runs, by run and key."""
    found: dict[str, dict[str, Tally]] = {}
    for table in imported.points(query, wanted):
        coded: Any = table["run_id"].cast(pa.string()).combine_chunks().dictionary_encode()
        for code, run_id in enumerate(coded.dictionary.to_pylist()):
            part = table
            if len(coded.dictionary) > 1:
                part = table.filter(pc.equal(coded.indices, pa.scalar(code, pa.int32())))
            found[run_id] = joined((found.get(run_id, {}), tallies(part)))
    return found


def _points(
    each: Prepared, there: dict[str, Tally], report: Report, *, is_new: bool
) -> Iterator[str]:
    for key, tally in each.spool.tallies.items():
        other = there.get(key, Tally())
        if tally.is_same(other):
            continue
        if other.count > tally.count and not is_new:
            note = Note("points that only the lake has stay", key, other.count - tally.count)
            report.lose(each.run.source_id, [note])
        elif tally.count != other.count:
            yield f"metric {key!r} has {tally.count} points in the source, {other.count} here."
        else:
            yield f"metric {key!r} has {tally.count} points on both sides, of other content."


def _facts(
    each: Prepared, there: dict[str, Any] | None, now: Sequence[BulkRow] | None
) -> Iterator[str]:
    if there is None:
        yield "the lake does not show it."
        return
    run = each.run
    start, end = each.times
    wanted = {
        "experiment_id": each.experiment_id,
        "status": run.status,
        "start_us": start,
        "end_us": end,
        "user_id": run.user,
        "source_name": run.source_name,
        "parent_run_id": each.parent_id,
        "lifecycle_stage": schema.DELETED if run.is_deleted else schema.ACTIVE,
    }
    said = {(row.kind, row.key): row.text for row in (each.facts.rows if now is None else now)}
    if run.name is not None and (schema.RUN, schema.RUN_NAME) in said:
        wanted["run_name"] = run.name
    if now is not None:  # what somebody changed here since stays
        is_told = (schema.STATUS, schema.STATUS_SET) in said
        wanted = {name: wanted[name] for name in ("status", "end_us") if is_told}
    for name, value in wanted.items():
        if value is not None and there[name] != value:
            yield f"{name} is {value!r} in the source, {there[name]!r} here."
    for (kind, key), text in said.items():
        if kind in {schema.PARAM, schema.TAG} and there["held"].get((kind, key)) != text:
            known = there["held"].get((kind, key))
            yield f"{kind} {key!r} is {str(text)[:40]!r} in the source, {str(known)[:40]!r} here."


def _files(each: Prepared, there: dict[tuple[str, str], tuple[int, str]]) -> Iterator[str]:
    for path, about in each.files.digests.items():
        if there.get((each.run_id, path)) != about:
            yield f"artifact {path!r} is not here as it is in the source."


def changes(lake: Lake, found: Prepared, before: Mapping[str, Any]) -> list[BulkRow]:
    """Return what a run says now that an earlier import did not; it is said now.

    Args:
        lake: where the run is.
        found: the run as it is read now.
        before: what the event of the earlier import says.

    Returns:
        The rows, with clocks after those of the earlier ones.
    """
    events = ask(lake, lambda query: imported.events(query, [found.run_id]))
    ours = {event["writer"] for event in events if event["kind"] == schema.IMPORT}
    now = clock.now_us()
    said: dict[tuple[str, str], str | None] = {}
    spoken: list[tuple[str, str, str | None, int]] = []
    for event in events:
        if event["writer"] in ours:
            said[event["kind"], event["key"]] = event["value"]
        spoken.append((event["kind"], event["key"], event["value"], event["at_us"]))
    rows = [row for row in found.facts.rows if _is_other(row, said, spoken)]
    if before.get("status") == [found.run.status, found.times[1]]:
        rows = [row for row in rows if row.kind != schema.STATUS]
    was_deleted = (schema.DELETE, "") in said
    if was_deleted and not found.run.is_deleted:
        rows.append(BulkRow(found.run_id, schema.RESTORE, "", None, None, now))
    kept = {row.key for row in found.facts.rows if row.kind == schema.TAG}
    gone = [
        BulkRow(found.run_id, schema.TAG, key, None, None, now)
        for (kind, key), text in said.items()
        if kind == schema.TAG and text is not None and key not in kept
    ]
    facts = _FACTS | _MARKS | {schema.STATUS}
    return [
        *(row._replace(clock=now) if row.kind in facts else row for row in rows),
        *gone,
    ]


def _is_other(
    row: BulkRow,
    said: dict[tuple[str, str], str | None],
    spoken: list[tuple[str, str, str | None, int]],
) -> bool:
    if row.kind == schema.STATUS:
        return True
    if row.kind in _MARKS:
        return (row.kind, row.key) not in said
    if row.kind in _FACTS:
        if row.text is None:
            return (row.kind, row.key) not in said
        return said.get((row.kind, row.key)) != row.text
    return (row.kind, row.key, row.text, row.clock) not in spoken
