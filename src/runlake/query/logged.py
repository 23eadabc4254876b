"""What stands about logged models, and which models runs read and made.

Folded from the facts that ride in footers; only the points that were measured of models lie in
rows, and those are read of the runs that measured any. Times are microseconds since 1970.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.query.rare import read_rare
from runlake.storage import arrays
from runlake.storage.standing import coded
from runlake.storage.state import MODEL_KINDS, earliest_stands

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from runlake.query.engine import Query
    from runlake.storage.states import StateRows
    from runlake.storage.tables import SnapshotTables
else:
    np = lazy("numpy")
    pa = lazy("pyarrow")
    pc = lazy("pyarrow.compute")

_OF_RUNS: Final = frozenset({schema.MODEL_METRIC, schema.MODEL_INPUT, schema.OUTPUT})
_OF_MODELS: Final = MODEL_KINDS - _OF_RUNS
_NAN: Final = math.nan
_READ: Final = ("run_id", "experiment_id", "kind", "key", "clock", "writer", "seq", "num", "str")


@dataclass(slots=True)
class LoggedModel:
    """A logged model as one snapshot knows it.

    Attributes:
        model_id: its id.
        experiment_id: where it was logged.
        home: under whose id its rows stand: the run that made it, else itself.
        name: what people call it.
        source_run_id: the run that made it, None for no run.
        model_type: what kind of model, None where nobody said.
        created_us: when it was made.
        updated_us: when its status changed last, or it was deleted.
        status: one of `schema.MODEL_STATUSES`.
        status_message: why, where it failed.
        is_deleted: whether it is hidden.
        is_erased: whether it is gone for ever.
        params: texts by key.
        tags: texts by key.
    """

    model_id: str
    experiment_id: str
    home: str
    name: str
    source_run_id: str | None
    model_type: str | None
    created_us: int
    updated_us: int
    status: str = schema.MODEL_PENDING
    status_message: str | None = None
    is_deleted: bool = False
    is_erased: bool = False
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


class Measured(NamedTuple):
    """One point that a run measured of a model.

    Attributes:
        run_id: the run.
        key: the metric.
        value: what was measured.
        time_us: when.
        step: as of the metric.
        dataset: name and digest of what it was measured on, None where nobody said.
    """

    run_id: str
    key: str
    value: float
    time_us: int
    step: int
    dataset: tuple[str, str] | None


class Linked(NamedTuple):
    """The models of one run.

    Attributes:
        inputs: those that it read.
        outputs: those that it made, with the step, in the order of making.
    """

    inputs: list[str]
    outputs: list[tuple[str, int]]


class _Fact(NamedTuple):
    """A fact in the order of (clock, writer, seq)."""

    clock: int
    writer: str
    seq: int
    run_id: str
    experiment_id: str
    num: float | None
    str: str | None


def read_models(query: Query, model_ids: Collection[str] | None = None) -> dict[str, LoggedModel]:
    """Return logged models by id, deleted ones too, but none that is erased.

    Args:
        query: the snapshot.
        model_ids: which; None for all.

    Returns:
        Those that there are, the oldest first.
    """
    folded = query.folded
    if model_ids is None:
        return folded.logged
    if "logged" in vars(folded):
        return {each: folded.logged[each] for each in model_ids if each in folded.logged}
    return fold_models(query.tables, model_ids)


def fold_models(
    tables: SnapshotTables, model_ids: Collection[str] | None = None
) -> dict[str, LoggedModel]:
    """Fold what `read_models` returns.

    Args:
        tables: the snapshot.
        model_ids: which models; None for all.

    Returns:
        By id, the oldest first; erased ones are left out.
    """
    standing = _stand(_chosen(tables.facts.of_kinds(_OF_MODELS), model_ids))
    found: dict[str, LoggedModel] = {}
    for (kind, model_id, _), fact in standing.items():
        if kind == schema.MODEL:
            about = _json(fact.str)
            made_us = fact.clock if fact.num is None else int(fact.num)
            found[model_id] = LoggedModel(
                model_id=model_id,
                experiment_id=fact.experiment_id,
                home=fact.run_id,
                name=str(about.get("name", model_id)),
                source_run_id=about.get("source_run_id"),
                model_type=about.get("model_type"),
                created_us=made_us,
                updated_us=made_us,
            )
    for (kind, model_id, key), fact in standing.items():
        if model_id in found:
            _tell(found[model_id], kind, key, fact)
    shown = (each for each in found.values() if not each.is_erased)
    return {
        each.model_id: each for each in sorted(shown, key=lambda of: (of.created_us, of.model_id))
    }


def read_measured(query: Query, model_ids: Collection[str]) -> dict[str, list[Measured]]:
    """Return the points that were measured of models, each once, in the order of measuring.

    Args:
        query: the snapshot.
        model_ids: the models.

    Returns:
        By model; models without any are left out.

    Raises:
        FileNotFoundError: a file of the snapshot is gone; take a new snapshot.
        StorageError: the store cannot be read.
    """
    facts = _chosen(query.tables.facts.of_kinds({schema.MODEL_METRIC}), model_ids)
    if not facts.num_rows:
        return {}
    said: list[list[Any]] = [facts[name].to_pylist() for name in ("run_id", "writer")]
    run_ids, writers = map(set, said)
    rows = read_rare(query.tables, schema.MODEL_METRIC, writers=writers, run_ids=run_ids)
    wanted = set(model_ids)
    found: dict[str, dict[Measured, None]] = {}
    points = sorted(
        (row for row in rows if row.key in wanted), key=lambda of: (of.clock, of.writer, of.seq)
    )
    for row in points:
        about = _json(row.str)
        name, digest = about.get("dataset_name"), about.get("dataset_digest")
        point = Measured(
            run_id=row.run_id,
            key=str(about.get("key", "")),
            # One NaN is not another, and so would count twice.
            value=_NAN if row.num is None or math.isnan(row.num) else row.num,
            time_us=int(about.get("time_us", row.clock)),
            step=int(about.get("step", 0)),
            dataset=None if name is None else (name, str(digest)),
        )
        found.setdefault(row.key, {})[point] = None
    return {model_id: list(measured) for model_id, measured in found.items()}


def read_linked(query: Query, run_ids: Collection[str]) -> dict[str, Linked]:
    """Return which models runs read and made.

    Args:
        query: the snapshot.
        run_ids: the runs.

    Returns:
        By run; runs without any are left out.
    """
    facts = query.tables.facts.of_kinds({schema.MODEL_INPUT, schema.OUTPUT})
    if not facts.num_rows:
        return {}
    is_meant: Any = pc.is_in(
        facts.coded("run_id").values, value_set=arrays.strings(sorted(run_ids))
    )
    rows = np.flatnonzero(arrays.truths(is_meant)[facts.coded("run_id").codes])
    found: dict[str, Linked] = {}
    said = _stand(facts.table().take(arrays.numbers(rows)), by_run=True)
    for (kind, model_id, _), fact in sorted(said.items(), key=lambda item: item[1][:3]):
        linked = found.setdefault(fact.run_id, Linked([], []))
        if kind == schema.MODEL_INPUT:
            linked.inputs.append(model_id)
        else:
            linked.outputs.append((model_id, int(fact.num or 0)))
    return found


def logged_table(models: dict[str, LoggedModel]) -> pa.Table:
    """Return logged models as rows: the table that the view `logged_models` is made from.

    Args:
        models: by id.
    """
    listed = [*models.values()]
    texts = ("model_id", "experiment_id", "home", "name", "source_run_id", "model_type")
    columns: dict[str, Any] = {
        name: arrays.strings([getattr(model, name) for model in listed])
        for name in (*texts, "status", "status_message")
    }
    for name in ("created_us", "updated_us"):
        columns[name] = arrays.numbers(np.array([getattr(of, name) for of in listed], np.int64))
    columns["is_deleted"] = pa.array([model.is_deleted for model in listed], pa.bool_())
    maps: Any = pa.map_(pa.string(), pa.string())
    for name in ("params", "tags"):
        columns[name] = pa.array([sorted(getattr(of, name).items()) for of in listed], maps)
    return pa.table(columns)


def _tell(model: LoggedModel, kind: str, key: str, fact: _Fact) -> None:
    """Take a standing fact about a model in."""
    if kind == schema.MODEL_PARAM and fact.str is not None:
        model.params[key] = fact.str
    elif kind == schema.MODEL_TAG and fact.str is not None:
        model.tags[key] = fact.str
    elif kind == schema.MODEL_DELETE:
        model.is_deleted = True
        model.is_erased = fact.str == schema.MODEL_ERASED
        model.updated_us = max(model.updated_us, int(fact.num or fact.clock))
    elif kind == schema.MODEL_STATUS:
        about = _json(fact.str)
        model.status = str(about.get("status", model.status))
        model.status_message = about.get("message")
        model.updated_us = max(model.updated_us, int(fact.num or fact.clock))


def _chosen(facts: StateRows, model_ids: Collection[str] | None) -> pa.Table:
    """Return the facts about some models."""
    if model_ids is None or not facts.num_rows:
        return facts.table()
    keys = facts.coded("key")
    owners = pc.replace_substring_regex(keys.values, pattern="/.*", replacement="")
    is_meant: Any = pc.is_in(owners, value_set=arrays.strings(sorted(model_ids)))
    rows = np.flatnonzero(arrays.truths(is_meant)[keys.codes])
    return facts.table().take(arrays.numbers(rows))


def _stand(facts: pa.Table, *, by_run: bool = False) -> dict[tuple[str, str, str], _Fact]:
    """Return what stands by kind, model, and key below the model (or run)."""
    columns: Iterable[list[Any]] = (_listed(facts[name]) for name in _READ)
    standing: dict[tuple[str, str, str], _Fact] = {}
    for run_id, home, kind, key, clock, writer, seq, num, text in zip(*columns, strict=True):
        model_id, _, below = key.partition("/")
        name = (kind, model_id, run_id if by_run else below)
        fact = _Fact(clock, writer, seq, run_id, home, num, text)
        known = standing.get(name)
        if known is None or (fact[:3] < known[:3]) == earliest_stands(kind, key):
            standing[name] = fact
    return standing


def _listed(column: pa.ChunkedArray[Any]) -> list[Any]:
    """Return a column as Python has it; texts that are numbered are made once each."""
    if pa.types.is_dictionary(column.type):
        found = coded(column)
        texts: list[Any] = found.values.to_pylist()
        return [texts[code] for code in found.codes.tolist()]
    if pa.types.is_integer(column.type):
        numbers: list[Any] = column.to_numpy().tolist()
        return numbers
    listed: list[Any] = column.to_pylist()
    return listed


def _json(text: str | None) -> dict[str, Any]:
    """Return what a fact says; nothing, where it is damaged."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
