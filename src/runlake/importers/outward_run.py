"""One run on its way into MLflow: what is missing goes, and all is compared after."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy, need
from runlake.importers.facts import digest
from runlake.importers.mlflow_client import told
from runlake.importers.mlflow_logged import FOLDER
from runlake.importers.outward_files import marks_at, send_files, wrong_files
from runlake.importers.source import Note, point_table
from runlake.importers.tally import Remainder, Tally, joined, tallies

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.artifacts.store import Artifacts
    from runlake.importers.outward_files import Marks
    from runlake.importers.report import Report
    from runlake.query import imported
    from runlake.query.engine import Query
else:
    imported = lazy("runlake.query.imported")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

RUN_ID: Final = "runlake.run_id"
EXPORTED: Final = "runlake.exported"
_PARENT: Final = "mlflow.parentRunId"
_METRICS: Final = 1000  # what MLflow takes in one batch
_OTHERS: Final = 100
_PAGE: Final = 25_000


class Exported(NamedTuple):
    """A run that MLflow has.

    Attributes:
        mlflow_id: its id there.
        mark: what `runlake.exported` says; empty: it is not whole.
        run: as MLflow gave it; None if it was made just now.
    """

    mlflow_id: str
    mark: str
    run: Any = None

    @property
    def is_deleted(self) -> bool:
        """Whether it is known to be in MLflow's bin."""
        return self.run is not None and self.run.info.lifecycle_stage == schema.DELETED


class _Facts(NamedTuple):
    """What a run says, as MLflow can hold it."""

    params: dict[str, str]
    tags: dict[str, str]
    inputs: list[Any]
    notes: list[Note]


class _Going(NamedTuple):
    """One run with all that goes with it: what it says, points, files by path; a digest of that."""

    about: Mapping[str, Any]
    facts: _Facts
    points: _Points
    files: dict[str, tuple[int, str]]
    mark: str


def send(
    client: Any,  # noqa: ANN401 - MLflow's
    query: Query,
    about: dict[str, Any],
    *,
    home: str,
    there: Exported | None,
    parent_id: str | None,
    files: Artifacts | None,
    report: Report,
) -> Exported:
    """Bring one run into MLflow, whole; one that is deleted in the lake is open there yet.

    Args:
        client: MLflow's.
        query: the lake's snapshot.
        about: what the run says of itself, as `imported.listed` returns it.
        home: MLflow's id of the experiment.
        there: what is there already.
        parent_id: MLflow's id of the parent, where it went too.
        files: of the lake; None leaves them.
        report: takes what is done.

    Returns:
        The run as it is there now.

    Raises:
        SourceError: MLflow refused.
    """
    run_id = about["run_id"]
    going = _going(query, about, parent_id, has_files=files is not None)
    if there is not None and there.mark == going.mark:
        report.add(already=1)
        return there
    with told(report.target):
        mlflow_id = _open(client, going, home, there)
        _send_facts(client, mlflow_id, going.facts, there)
        count = going.points.send(client, mlflow_id, is_new=there is None)
        sent = _send_files(client, mlflow_id, going, files)
        problems = list(_differences(client, mlflow_id, going))
        _end(client, mlflow_id, about)
        if not problems:  # the mark comes last: whoever finds it looks no further
            client.set_tag(mlflow_id, EXPORTED, going.mark)
    report.add(
        brought=int(there is None),
        grown=int(there is not None),
        points=count,
        params=len(going.facts.params),
        tags=len(going.facts.tags),
        inputs=len(going.facts.inputs),
        artifacts=len(sent),
        artifact_bytes=sum(sent.values()),
        checked=1,
        failed=int(bool(problems)),
    )
    report.lose(run_id, [*going.facts.notes, *going.points.notes])
    for problem in problems[:3]:
        report.fail(f"run {run_id}: {problem}")
    return Exported(mlflow_id, going.mark)


def _going(
    query: Query, about: Mapping[str, Any], parent_id: str | None, *, has_files: bool
) -> _Going:
    run_id = about["run_id"]
    known = imported.artifacts(query, [run_id]) if has_files else {}
    files = {
        path: mark
        for (_, path), mark in known.items()
        if not path.startswith(f"{FOLDER}/")  # these go with their models
    }
    facts, points = _facts(query, about, parent_id), _Points(query, run_id)
    names = ("run_name", "status", "start_us", "end_us", "lifecycle_stage", "user_id")
    itself = [about[name] for name in names]
    inputs = sorted(str(each.to_dictionary()) for each in facts.inputs)
    told_of = (facts.params, facts.tags, inputs, points.mark, sorted(files.items()), itself)
    return _Going(about, facts, points, files, digest(told_of))


def _open(client: Any, going: _Going, home: str, there: Exported | None) -> str:  # noqa: ANN401 - MLflow's
    """Return MLflow's id of a run that can be written to; make it where there is none."""
    if there is None:
        return _create(client, going.about, home, going.facts)
    if there.is_deleted:
        client.restore_run(there.mlflow_id)
    return there.mlflow_id


def _create(client: Any, about: Mapping[str, Any], home: str, facts: _Facts) -> str:  # noqa: ANN401 - MLflow's
    tags = {RUN_ID: about["run_id"]}
    for name in ("mlflow.user", _PARENT):
        if name in facts.tags:
            tags[name] = facts.tags[name]
    run = client.create_run(
        home, start_time=about["start_us"] // 1000, tags=tags, run_name=about["run_name"]
    )
    return str(run.info.run_id)


def _end(client: Any, mlflow_id: str, about: Mapping[str, Any]) -> None:  # noqa: ANN401 - MLflow's
    status = about["status"]
    if status in schema.ENDED:
        end_us = about["end_us"]
        client.set_terminated(mlflow_id, status, None if end_us is None else end_us // 1000)
    elif status != schema.RUNNING:
        client.update_run(mlflow_id, status=status)


def _facts(query: Query, about: Mapping[str, Any], parent_id: str | None) -> _Facts:
    rules = need("mlflow.utils.validation", extra="mlflow")
    run_id = about["run_id"]
    held = imported.facts(query, [run_id])[run_id]["held"]
    notes: list[Note] = []
    params = {key: text for (kind, key), text in held.items() if kind == schema.PARAM}
    tags = {key: text for (kind, key), text in held.items() if kind == schema.TAG}
    if about["user_id"]:
        tags.setdefault("mlflow.user", about["user_id"])
    if about["source_name"]:
        tags.setdefault("mlflow.source.name", about["source_name"])
    if about["parent_run_id"] is not None:
        tags[_PARENT] = parent_id or about["parent_run_id"]
        if parent_id is None:
            notes.append(Note("parent is not there: the tag has its id in the lake"))
    params = _fitting("param", params, rules.MAX_PARAM_VAL_LENGTH, notes)
    tags = _fitting("tag", tags, rules.MAX_TAG_VAL_LENGTH, notes)
    times = [each for each in (about["start_us"], about["end_us"]) if each is not None]
    if any(each % 1000 for each in times):
        notes.append(Note("times of runs are cut to milliseconds"))
    return _Facts(params, tags, _inputs(query, run_id), notes)


def _fitting(what: str, given: Mapping[str, str], limit: int, notes: list[Note]) -> dict[str, str]:
    found = {}
    for key, text in given.items():
        if not _is_key(key):
            notes.append(Note(f"{what} left out: MLflow does not take such a key", key[:80]))
        elif len(text) > limit:
            notes.append(Note(f"{what} left out: MLflow keeps {limit:,} characters of it", key))
        else:
            found[key] = text
    return found


def _is_key(key: str) -> bool:
    rules = need("mlflow.utils.validation", extra="mlflow")
    try:
        rules._validate_metric_name(key)  # noqa: SLF001 - the same rule for all keys
    except need("mlflow.exceptions").MlflowException:
        return False
    return True


def _inputs(query: Query, run_id: str) -> list[Any]:
    entities = need("mlflow.entities", extra="mlflow")
    found = []
    for each in need("runlake.query.input_rows").read_inputs(query, [run_id]).get(run_id, ()):
        tags = dict(each.tags)
        if each.context is not None:
            tags["mlflow.data.context"] = each.context
        dataset = entities.Dataset(
            name=each.name,
            digest=each.digest,
            source_type=each.source_type or "",
            source=each.source or "",
            schema=each.schema,
            profile=each.profile,
        )
        labels = [entities.InputTag(key, text) for key, text in tags.items()]
        found.append(entities.DatasetInput(dataset, labels))
    return found


def _send_facts(client: Any, mlflow_id: str, facts: _Facts, there: Exported | None) -> None:  # noqa: ANN401 - MLflow's
    entities = need("mlflow.entities")
    data = None if there is None or there.run is None else there.run.data
    params = lacking(facts.params, {} if data is None else data.params)
    tags = lacking(facts.tags, {} if data is None else data.tags)
    for start in range(0, len(params), _OTHERS):
        some = [entities.Param(key, text) for key, text in params[start : start + _OTHERS]]
        client.log_batch(mlflow_id, params=some)
    for start in range(0, len(tags), _OTHERS):
        some = [entities.RunTag(key, text) for key, text in tags[start : start + _OTHERS]]
        client.log_batch(mlflow_id, tags=some)
    if facts.inputs:
        client.log_inputs(mlflow_id, facts.inputs)


def lacking(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the keys that are not there with the same text, and the texts that they are to have.

    Args:
        wanted: texts by key, as the lake has them.
        there: as MLflow has them.
    """
    return [(key, text) for key, text in wanted.items() if there.get(key) != text]


def _send_files(
    client: Any,  # noqa: ANN401 - MLflow's
    mlflow_id: str,
    going: _Going,
    files: Artifacts | None,
) -> dict[str, int]:
    def fetch(path: str, file: Path) -> None:
        if files is not None:
            files.download_as(going.about["run_id"], path, target=file, progress=lambda _: None)

    def put(file: str, folder: str | None) -> None:
        client.log_artifact(mlflow_id, file, folder)

    return send_files(going.files, partial(_files, client, mlflow_id), fetch=fetch, put=put)


def _files(client: Any, mlflow_id: str) -> Marks:  # noqa: ANN401 - MLflow's
    return marks_at(client, client.get_run(mlflow_id).info.artifact_uri)


def _differences(client: Any, mlflow_id: str, going: _Going) -> Iterator[str]:  # noqa: ANN401 - MLflow's
    yield from going.points.differences(client, mlflow_id)
    data = client.get_run(mlflow_id).data
    for what, wanted, there in (
        ("param", going.facts.params, data.params),
        ("tag", going.facts.tags, data.tags),
    ):
        for key, text in lacking(wanted, there):
            said = str(there.get(key))[:40]
            yield f"{what} {key!r} is {text[:40]!r} in the lake, {said!r} there."
    yield from wrong_files(going.files, partial(_files, client, mlflow_id))


class _Points:
    """The points of one run, as MLflow can hold them."""

    def __init__(self, query: Query, run_id: str) -> None:
        """Read them once, to know what goes and what MLflow does not take."""
        self._query, self._run_id = query, run_id
        self._refused: dict[str, int] = {}
        self._cut = 0
        self._tallies: dict[str, Tally] = joined(map(tallies, self._tables()))
        what = "metric left out: MLflow does not take such a key"
        self.notes = [Note(what, key[:80], count) for key, count in self._refused.items()]
        if self._cut:
            self.notes.append(Note("times of points are cut to milliseconds", "", self._cut))

    @property
    def mark(self) -> list[Any]:
        """What tells these points from others."""
        return sorted((key, each.count, each.checksum) for key, each in self._tallies.items())

    def _tables(self) -> Iterator[pa.Table]:
        """Yield the points; times cut to milliseconds."""
        self._refused, self._cut = {}, 0
        for table in imported.points(self._query, [self._run_id]):
            keys: Any = table["key"].cast(pa.string())
            bad = [key for key in keys.unique().to_pylist() if not _is_key(key)]
            for each in pc.value_counts(keys).to_pylist() if bad else ():
                if each["values"] in bad:
                    count = self._refused.get(each["values"], 0) + each["counts"]
                    self._refused[each["values"]] = count
            if bad:
                is_good = pc.invert(pc.is_in(keys, value_set=pa.array(bad)))
                table = table.filter(is_good)  # noqa: PLW2901 - the rest of it
            times: Any = table["timestamp"].cast(pa.int64())
            whole = pc.subtract(times, _remainder(times))
            self._cut += pc.sum(pc.cast(pc.not_equal(whole, times), pa.int64())).as_py() or 0
            at = table.column_names.index("timestamp")
            stamped = whole.cast(pa.timestamp("us", tz="UTC"))
            yield table.set_column(at, "timestamp", stamped)

    def send(self, client: Any, mlflow_id: str, *, is_new: bool) -> int:  # noqa: ANN401 - MLflow's
        """Send the points that are not there; return how many."""
        metric = need("mlflow.entities").Metric
        left = Remainder(() if is_new else self._there(client, mlflow_id))
        count = 0
        for table in self._tables():
            rest = left.of(table)
            times = rest["timestamp"].cast(pa.int64()).to_pylist()
            columns = (rest[name].to_pylist() for name in ("key", "value", "step"))
            rows = list(zip(*columns, times, strict=True))
            for start in range(0, len(rows), _METRICS):
                some = [
                    metric(key, value, moment // 1000, step)
                    for key, value, step, moment in rows[start : start + _METRICS]
                ]
                client.log_batch(mlflow_id, metrics=some)
            count += len(rows)
        return count

    def differences(self, client: Any, mlflow_id: str) -> Iterator[str]:  # noqa: ANN401 - MLflow's
        """Compare what is there; what MLflow is known to change is noted, the rest is wrong."""
        there = joined(map(tallies, self._there(client, mlflow_id)))
        for key, tally in self._tallies.items():
            other = there.get(key, Tally())
            if tally.is_same(other):
                continue
            if tally.count > other.count:
                lacking = tally.count - other.count
                if self._are_doubles(key, other.count):
                    what = "equal points of one time and step: MLflow keeps one of them"
                    self.notes.append(Note(what, key, lacking))
                    continue
            elif tally.count == other.count and self._has_infinity(key):
                self.notes.append(Note("infinity: MLflow keeps the greatest float", key))
                continue
            yield f"metric {key!r} has {tally.count} points in the lake, {other.count} there."

    def _are_doubles(self, key: str, count: int) -> bool:
        found: set[tuple[Any, ...]] = set()
        for table in self._of(key):
            columns = (table[name].to_pylist() for name in ("step", "timestamp", "value"))
            rows = zip(*columns, strict=True)
            found.update((step, at, repr(value)) for step, at, value in rows)
        return len(found) == count

    def _has_infinity(self, key: str) -> bool:
        return any(pc.any(pc.is_inf(table["value"])).as_py() for table in self._of(key))

    def _of(self, key: str) -> Iterator[pa.Table]:
        for table in self._tables():
            yield table.filter(pc.equal(table["key"].cast(pa.string()), pa.scalar(key)))

    def _there(self, client: Any, mlflow_id: str) -> Iterator[pa.Table]:  # noqa: ANN401 - MLflow's
        """Yield the points that MLflow has."""
        store = client._tracking_client.store  # noqa: SLF001 - pages of histories
        for key in sorted(client.get_run(mlflow_id).data.metrics):
            token = None
            while True:
                page = store.get_metric_history(mlflow_id, key, max_results=_PAGE, page_token=token)
                yield point_table(
                    [key] * len(page),
                    [int(each.step) for each in page],
                    [each.timestamp * 1000 for each in page],
                    [float(each.value) for each in page],
                )
                token = page.token
                if not token:
                    break


def _remainder(times: Any) -> Any:  # noqa: ANN401 - a chunked array of int64
    """Return what is left of times behind the last whole millisecond; never negative."""
    plain = [chunk.to_numpy(zero_copy_only=False) % 1000 for chunk in times.chunks]
    return pa.chunked_array(list(map(pa.array, plain)), pa.int64())
