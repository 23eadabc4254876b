"""Rows of files whose digests are made later: where they begin, and how the digests get into them.

See `runlake.storage.later`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake import schema
from runlake.storage import later, layout
from runlake.writing import notices
from runlake.writing.events import Position

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from runlake.storage.engine import Storage
    from runlake.writing.events import Event
    from runlake.writing.journal import Journal


def wait(journal: Journal, start: Position) -> None:
    """Return when every digest is made for which rows from a place on wait."""
    for _, _, text in _marked(journal.read_events(start, journal.position())):
        later.wait(text)


def before_waiting(journal: Journal, start: Position, end: Position) -> Position:
    """Return how far rows can go to the store now.

    Args:
        journal: theirs.
        start: a place that is not trimmed.
        end: a place behind it.

    Returns:
        The place of the first event between them whose digest is still being made; else `end`.
    """
    for place, event, text in _marked(journal.read_events(start, end)):
        if later.is_waiting(text):
            return Position(event.points, start.events + place)
    return end


def settled(
    journal: Journal, start: Position, end: Position, *, storage: Storage, experiment_id: str
) -> list[Event]:
    """Return the events between two places with all digests, which the journal then has too.

    Args:
        journal: theirs.
        start: a place that is not trimmed.
        end: a place behind it.
        storage: of the lake that has the files.
        experiment_id: whose files they are.
    """
    events = journal.read_events(start, end)
    for place, event, text in _marked(events):
        key = layout.artifacts(experiment_id, event.run_id) + event.key
        try:
            said = later.settled(text, storage.fs.local_file(key))
        except OSError as error:  # no reason to keep other rows back
            notices.tell_unsettled(f"{storage.fs.url}/{key}", error)
            said = later.unmarked(text)
        events[place] = event._replace(str=said)
        journal.amend(start.events + place, events[place])
    return events


def _marked(events: Sequence[Event]) -> Iterator[tuple[int, Event, str]]:
    """Yield the events with marks: the place of each, itself, and its text."""
    for place, event in enumerate(events):
        text = event.str
        if event.kind == schema.ARTIFACT and text is not None and later.is_marked(text):
            yield place, event, text
