"""What a run says of itself, as rows of the log: checked, and what does not fit is named."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from runlake import logged_models, run_names, schema
from runlake.dataset import Dataset, input_rows
from runlake.errors import InvalidInputError
from runlake.importers.source import Note
from runlake.redaction import REDACTED
from runlake.writing import values
from runlake.writing.bulk import BulkRow
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from runlake.importers.source import SourceInput, SourceRun
    from runlake.writing.events import Row

_PARENT_TAG: Final = "mlflow.parentRunId"
_HEX: Final = frozenset("0123456789abcdef")
_ID_LENGTH: Final = 32
_TAKEN: Final = frozenset(
    {
        schema.NOTE,
        schema.HISTOGRAM,
        schema.CONSOLE,
        schema.ALERT,
        schema.PROVENANCE,
        schema.DATASET,
    }
)


# Of these a run says any number under one key.
_MANY: Final = _TAKEN | {schema.MODEL_METRIC}


class Facts(NamedTuple):
    """What one run says, but for its points and files.

    Attributes:
        rows: as the log has them.
        notes: what does not fit, and is left out.
        params: how many there are.
        tags: likewise.
        inputs: likewise.
        events: likewise.
    """

    rows: list[BulkRow]
    notes: list[Note]
    params: int
    tags: int
    inputs: int
    events: int


def ids_of(kind: str, source_id: str) -> str:
    """Return the id that a run of a tracker has in a lake.

    Args:
        kind: of the tracker.
        source_id: the run's id there.

    Returns:
        The same, if it is 32 lower-case hex digits; else 32 such digits that follow from both.
    """
    if len(source_id) == _ID_LENGTH and _HEX.issuperset(source_id):
        return source_id
    return hashlib.blake2b(f"{kind}\0{source_id}".encode(), digest_size=16).hexdigest()


def run_id_of(kind: str, run: SourceRun) -> str:
    """Return the id that a run gets in a lake.

    Raises:
        InvalidInputError: the source gives one that no run may have.
    """
    return ids_of(kind, run.source_id) if run.run_id is None else values.run_id(run.run_id)


def moments(run: SourceRun, first_us: int | None, last_us: int | None) -> tuple[int, int | None]:
    """Return when a run began and ended, as well as can be known.

    Args:
        run: the run.
        first_us: the time of its first point, None if it has none.
        last_us: of its last.

    Returns:
        Both in microseconds since 1970; no end of an open run.
    """
    ends = [each for each in (run.end_us, last_us) if each is not None]
    known = [each for each in (run.start_us, first_us, *ends[:1]) if each is not None]
    start = known[0] if known else 0
    if run.status in schema.OPEN:
        return start, None
    return start, ends[0] if ends else start


def facts_of(
    run: SourceRun,
    run_id: str,
    parent_id: str | None,
    *,
    times: tuple[int, int | None],
    is_secret: Callable[[str], bool],
) -> Facts:
    """Return what a run says, in the order in which it would have been logged.

    Args:
        run: the run.
        run_id: its id in the lake.
        parent_id: of the run that it is nested in, in the lake.
        times: see `moments`.
        is_secret: tells of which params no value is kept.

    Returns:
        Its rows, and what is left out.

    Raises:
        InvalidInputError: its status is none.
    """
    if run.status not in schema.STATUSES:
        message = f"the status of a run is one of {schema.STATUSES}, got {run.status!r}."
        raise InvalidInputError(message)
    book = _Book(run_id, times[0])
    _say_itself(book, run, parent_id)
    params = sum(book.param(key, value, is_secret) for key, value in run.params.items())
    tags = sum(book.text(schema.TAG, key, value) for key, value in run.tags.items())
    if parent_id is not None:
        book.text(schema.TAG, _PARENT_TAG, parent_id)
    inputs = sum(book.input(each) for each in run.inputs)
    _say_models(book, run)
    events = _say_events(book, run)
    if run.end_us is not None and run.status in schema.OPEN:
        book.notes.append(Note("end of a run that is open again"))
    end = times[1]
    moment = times[0] if end is None else end
    # Set for the run as a whole: who brings it is not who ran it.
    said = None if end is None else float(end)
    book.say(schema.STATUS, schema.STATUS_SET, said, run.status, clock=max(moment, times[0]))
    if run.is_deleted:
        book.say(schema.DELETE, "", None, None, clock=max(moment, times[0]))
    return Facts(list(book.standing()), book.notes, params, tags, inputs, events)


def _say_itself(book: _Book, run: SourceRun, parent_id: str | None) -> None:
    book.say(schema.RUN, schema.RUN_START, float(book.clock), None)
    book.say(schema.RUN, schema.RUN_AUTO_NAME, None, run_names.auto_name(book.run_id))
    given = {
        schema.RUN_NAME: run.name,
        schema.RUN_USER: run.user,
        schema.RUN_SOURCE: run.source_name,
        schema.RUN_PARENT: parent_id,
    }
    for key, value in given.items():
        if value is not None:
            book.text(schema.RUN, key, value)


def _say_models(book: _Book, run: SourceRun) -> None:
    """Say which logged models a run made, read and measured."""
    for each in run.models:
        made_us = book.clock if each.model.time_us is None else each.model.time_us
        ended_us = made_us if each.updated_us is None else each.updated_us
        model = replace(
            each.model, source_run_id=book.run_id, time_us=made_us, status=schema.MODEL_PENDING
        )
        home, model_id, status = book.run_id, model.model_id, each.model.status
        book.rows(logged_models.creation_rows(model), clock=made_us)
        said = logged_models.status_rows(
            home, model_id, status, message=each.message, at_us=ended_us
        )
        book.rows(said, clock=ended_us)
    book.rows(logged_models.output_rows(book.run_id, run.outputs))
    book.rows(logged_models.input_rows(book.run_id, list(run.model_inputs)))
    for point in run.measured:
        book.rows(logged_models.metric_rows(book.run_id, [point]), clock=point.time_us)


def _say_events(book: _Book, run: SourceRun) -> int:
    count = 0
    for event in run.events():
        if event.kind not in _TAKEN:
            message = f"an event of kind {event.kind!r} is none that a source may give."
            raise InvalidInputError(message)
        if book.fits(event.kind, event.key, event.text):
            clock = book.clock if event.time_us is None else event.time_us
            book.say(event.kind, event.key, event.num, event.text, clock=clock)
            count += 1
    return count


class _Book:
    """Rows of one run as they come."""

    def __init__(self, run_id: str, clock: int) -> None:
        self.run_id = run_id
        self.clock = clock
        self.notes: list[Note] = []
        self._rows: list[BulkRow] = []

    def say(
        self, kind: str, key: str, num: float | None, text: str | None, *, clock: int | None = None
    ) -> None:
        moment = self.clock if clock is None else clock
        self._rows.append(BulkRow(self.run_id, kind, key, num, text, moment))

    def rows(self, rows: Iterable[Row], *, clock: int | None = None) -> None:
        for _, kind, key, num, text in rows:
            self.say(kind, key, num, text, clock=clock)

    def fits(self, kind: str, key: str, text: str | None) -> bool:
        """Tell whether a key and a text may be kept; note it where not."""
        try:
            if key or kind in {schema.PARAM, schema.TAG}:
                values.name(kind, key)
            values.text(kind, key[:80], "" if text is None else text)
        except InvalidInputError as error:
            what = str(error).replace(repr(key[:80]), "").partition(":")[0]
            self.notes.append(Note(f"{kind} left out: {' '.join(what.split())}", key[:80]))
            return False
        return True

    def text(self, kind: str, key: str, value: object) -> bool:
        text = str(value)
        if not self.fits(kind, key, text):
            return False
        self.say(kind, key, None, text)
        return True

    def param(self, key: str, value: object, is_secret: Callable[[str], bool]) -> bool:
        text, number = str(value), values.number_beside(value)
        if not self.fits(schema.PARAM, key, text):
            return False
        if is_secret(key) and text != REDACTED:
            self.notes.append(Note("param redacted: its key names a secret", key))
            text, number = REDACTED, None
        self.say(schema.PARAM, key, number, text)
        return True

    def input(self, given: SourceInput) -> bool:
        try:
            rows = _input_rows(self.run_id, given)
        except InvalidInputError as error:
            short = given._replace(schema=None, profile=None)
            try:
                rows = _input_rows(self.run_id, short)
            except InvalidInputError:
                self.notes.append(Note("data set left out", f"{given.name[:80]}: {error}"))
                return False
            self.notes.append(Note("schema and profile of a data set left out", given.name[:80]))
        for _, kind, key, num, text in rows:
            self.say(kind, key, num, text)
        return True

    def standing(self) -> Iterable[BulkRow]:
        """Return the rows, each fact once: a later one of the same key stands."""
        found: dict[object, BulkRow] = {}
        for place, row in enumerate(self._rows):
            is_fact = row.kind not in _MANY or row.kind == schema.DATASET
            found[(row.kind, row.key) if is_fact else place] = row
        return found.values()


def _input_rows(run_id: str, given: SourceInput) -> list[Row]:
    about = {name: getattr(given, name) for name in Dataset.__slots__}
    return input_rows(run_id, Dataset(**about), given.context, tags=given.tags)


def digest(parts: Iterable[object]) -> str:
    """Return a digest of what JSON can hold."""
    total = hashlib.blake2b(digest_size=16)
    for part in parts:
        total.update(to_json(part).encode())
        total.update(b"\n")
    return total.hexdigest()
