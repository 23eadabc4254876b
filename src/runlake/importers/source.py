"""What a source of runs gives to the importer: the contract between both.

A source reads, and knows nothing of lakes; `runlake.importers.bring` writes, and knows nothing of
trackers. A source gives its runs one at a time, in the same order each time, with everything
that is long behind a function, so that neither side holds more than a piece of it in memory.
What a source cannot give as the tracker had it, it names in `notes`: nothing is left out in
silence.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import pyarrow as pa

    from runlake.importers.report import Report
    from runlake.lake import Lake
    from runlake.logged_models import MeasuredModel, NewModel
else:
    pa = lazy("pyarrow")

PIECE_ROWS: Final = 1 << 17
"""A source gives so many points in a piece, about; more cost memory, fewer cost time."""


class SourceExperiment(NamedTuple):
    """Where a run lay.

    Attributes:
        name: of the experiment in the lake, made where there is none: 1 to 500 printable
            characters.
        source_id: how the tracker called it, where that is something else; kept as the tag
            `import.experiment_id` if it is none of the lake's own ids.
        tags: texts by key.
        artifact_location: where the tracker keeps its files; told in the report only.
        is_deleted: it was in the tracker's bin; it is deleted here as well, once its runs came.
        created_us: when it was made, microseconds since 1970, UTC; None: not known.
    """

    name: str
    source_id: str | None = None
    tags: Mapping[str, str] = {}
    artifact_location: str | None = None
    is_deleted: bool = False
    created_us: int | None = None


class SourceFile(NamedTuple):
    """One artifact of a run.

    Attributes:
        path: below the run, parts joined by `/`.
        fetch: returns a local file with the content; it may put one into the folder that it is
            given, which is empty and is deleted after.
        size_bytes: as the source says; None: not known.
        sha256: in hex, as the source says; empty: it does not.
        about: fields of the artifact's event besides, see the table "artifact" of the format:
            `media`, `key`, `step`, `time_us`, `caption`, `media_type`, ...
    """

    path: str
    fetch: Callable[[Path], Path]
    size_bytes: int | None = None
    sha256: str = ""
    about: Mapping[str, object] | None = None

    @classmethod
    def local(cls, path: str, file: Path, about: Mapping[str, object] | None = None) -> SourceFile:
        """Return the artifact that a local file is.

        Args:
            path: below the run.
            file: the local file.
            about: as the attribute.
        """
        return cls(path, lambda _: file, file.stat().st_size, "", about)


class SourceInput(NamedTuple):
    """A data set that a run read; the fields are those of `runlake.Dataset`.

    Attributes:
        name: what people call it.
        digest: what changes when the data do.
        source: where it comes from.
        source_type: what kind of source that is.
        schema: what columns it has, a text.
        profile: what is worth knowing of its content, a text.
        context: what the run read it for.
        tags: what else is said of it, texts by key.
    """

    name: str
    digest: str
    source: str | None = None
    source_type: str | None = None
    schema: str | None = None
    profile: str | None = None
    context: str | None = None
    tags: Mapping[str, str] = {}


class SourceLogged(NamedTuple):
    """A logged model that a run made; its files are artifacts below `_models/<model id>/`.

    Attributes:
        model: the model; `source_run_id` is filled in.
        updated_us: when its status changed last, microseconds since 1970; None: when it was made.
        message: why, where it failed.
    """

    model: NewModel
    updated_us: int | None = None
    message: str | None = None


class SourceEvent(NamedTuple):
    """Something else that a run said, as a row of the log.

    Attributes:
        kind: `histogram`, `console`, `note`, `alert`, `provenance` or another kind of the format
            that is neither a fact nor a point.
        key: as the format says for the kind.
        num: likewise.
        text: likewise; of a histogram what `runlake.writing.histograms.text_of` returns.
        time_us: when, microseconds since 1970, UTC; None: when the run began.
    """

    kind: str
    key: str
    num: float | None = None
    text: str | None = None
    time_us: int | None = None


@dataclass(frozen=True, slots=True)
class Note:
    """Something that does not come as the tracker had it; the report names it.

    Attributes:
        what: the same text for the same reason, as `step was no whole number`: notes are counted
            by it.
        about: which thing, as a metric's key; empty: of the whole run.
        count: how many values it concerns.
    """

    what: str
    about: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRun:
    """One run as a tracker has it. Times are microseconds since 1970, UTC.

    Attributes:
        source_id: the run's id in the source: unique there, the same each time, whatever the
            folder is called from which it is read. 32 lower-case hex digits are kept as the
            run's id; from everything else one is derived, see `runlake.importers.ids_of`.
        experiment: where it lay.
        name: as people call it; None: the lake derives one.
        status: RUNNING, SCHEDULED, FINISHED, FAILED or KILLED.
        start_us: when it began; None takes the time of its first point.
        end_us: when it ended; None takes that of its last point. Of an open run it is not kept.
        user: who.
        source_name: which script.
        parent_id: `source_id` of the run that it is nested in.
        is_deleted: it was in the tracker's bin.
        run_id: for a source whose ids are good run ids though no hex: kept as it is.
        params: texts, numbers or bools by key; nested ones are flattened by the source.
        tags: texts by key.
        inputs: data sets that it read.
        models: logged models that it made.
        outputs: steps at which it made logged models, by their ids.
        model_inputs: logged models that it read, by their ids.
        measured: points that it measured of logged models; they are among `points` as well.
        points: gives tables of points, columns `key` string, `step` int64, `timestamp`
            timestamp[us, UTC], `value` float64, none null, NaN and infinities as they are; about
            `PIECE_ROWS` rows each. Called once, or once more where it was interrupted: it must
            give the same points in the same order.
        artifacts: gives its files.
        events: gives what else it said.
        notes: gives what could not be kept; called after points, artifacts and events are read.
        version: what is different whenever anything of the run is, and costs little to find out
            (sizes and times of its files): a run that came whole with the same version is not
            read again. Empty: there is none, it is read again and compared.
        read: of a run of which it costs to know more than id, experiment and version: gives all
            of it, and is called only if the version is another. None: this is all of it.
    """

    source_id: str
    experiment: SourceExperiment
    name: str | None = None
    status: str = schema.FINISHED
    start_us: int | None = None
    end_us: int | None = None
    user: str | None = None
    source_name: str | None = None
    parent_id: str | None = None
    is_deleted: bool = False
    run_id: str | None = None
    params: Mapping[str, object] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[SourceInput] = ()
    models: Sequence[SourceLogged] = ()
    outputs: Mapping[str, int] = field(default_factory=dict)
    model_inputs: Sequence[str] = ()
    measured: Sequence[MeasuredModel] = ()
    points: Callable[[], Iterable[pa.Table]] = tuple
    artifacts: Callable[[], Iterable[SourceFile]] = tuple
    events: Callable[[], Iterable[SourceEvent]] = tuple
    notes: Callable[[], Iterable[Note]] = tuple
    version: str = ""
    read: Callable[[], SourceRun] | None = None


class Source(ABC):
    """A place that holds runs of another tracker.

    Attributes:
        kind: as people name it: `mlflow`, `wandb`, ...
        name: where it is, for the report; without passwords.
    """

    kind: str
    name: str

    @abstractmethod
    def runs(self) -> Iterator[SourceRun]:
        """Yield every run, also unfinished and deleted ones, in the same order each time.

        Raises:
            SourceError: the source cannot be read.
        """

    def count(self) -> int | None:
        """Return how many runs there are, for the progress bar; None where that costs."""
        return None

    def experiments(self) -> Iterable[SourceExperiment]:
        """Return experiments that are to be there though no run lies in them."""
        return ()

    def finish(self, lake: Lake, report: Report, *, artifacts: bool) -> None:  # noqa: B027 - most have nothing more
        """Bring what is no run, once all runs came, as registered models.

        Args:
            lake: where it goes; what is there already is left as it is.
            report: takes what was done.
            artifacts: whether files come too.
        """

    def notes(self) -> Iterable[Note]:
        """Return what could not be kept and belongs to no run; asked last."""
        return ()

    def close(self) -> None:  # noqa: B027 - most hold nothing
        """Let go of files and connections."""


class SourceError(InvalidInputError):
    """A source, or one run of it, cannot be read as what it was said to be."""


def point_schema() -> pa.Schema:
    """Return the Arrow schema of the tables that `SourceRun.points` gives."""
    fields: list[tuple[str, pa.DataType]] = [
        ("key", pa.string()),
        ("step", pa.int64()),
        ("timestamp", pa.timestamp("us", tz="UTC")),
        ("value", pa.float64()),
    ]
    return pa.schema(fields)


def point_table(
    keys: Sequence[str], steps: Sequence[int], times_us: Sequence[int], values: Sequence[float]
) -> pa.Table:
    """Return points as `SourceRun.points` gives them.

    Args:
        keys: shape (n,), or one key for all points.
        steps: shape (n,).
        times_us: shape (n,), microseconds since 1970, UTC.
        values: shape (n,); NaN is a value.

    Returns:
        shape (n, 4), columns of `point_schema`.
    """
    count = len(values)
    given = [keys] * count if isinstance(keys, str) else keys
    times = pa.array(times_us, pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    columns: list[Any] = [
        pa.array(given, pa.string()),
        pa.array(steps, pa.int64()),
        times,
        pa.array(values, pa.float64()),
    ]
    return pa.Table.from_arrays(columns, schema=point_schema())
