"""What TensorBoard's summaries say, one value at a time.

A value stands in one of two forms: the older fields (`simple_value`, `histo`, `image`, `audio`) or
a tensor with the name of the plugin that shows it. The name stands only with the first value of a
tag in each file.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake.importers import histories
from runlake.importers.tfevents import EventFile, Tensor, tensor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from runlake.importers.wire import Message

SCALAR, HISTOGRAM, IMAGE, AUDIO, TEXT = "scalars", "histograms", "images", "audio", "text"
HPARAMS, OTHER = "hparams", "other"
# Fields of an event that are no summary, and what they are called in the report.
PASSED_OVER: Final = {
    4: "graphs of a model",
    6: "log messages",
    8: "profiles of a run's steps",
    9: "graphs of a model",
}
_SUMMARY: Final = 5
_SIMPLE, _IMAGE, _HISTO, _AUDIO, _TENSOR, _METADATA = 2, 4, 5, 6, 8, 9
_OLD_FORMS: Final = {_SIMPLE: SCALAR, _IMAGE: IMAGE, _HISTO: HISTOGRAM, _AUDIO: AUDIO}
_TRIPLE: Final = 3
_END: Final = 4  # of a session of the hparams plugin
_NUMBER, _TEXT, _BOOL, _STRUCT, _LIST = 2, 3, 4, 5, 6  # fields of google.protobuf.Value
_HEAD: Final = 2  # a tensor of images begins with width and height


class Value(NamedTuple):
    """One value of one tag.

    Attributes:
        kind: one of those above.
        tag: its name.
        plugin: of TensorBoard, that shows it; empty: not said.
        step: of the event.
        time_us: of the event, microseconds since 1970.
        message: the value.
        description: that the program gave of the tag, where this is its first value.
    """

    kind: str
    tag: str
    plugin: str
    step: int
    time_us: int
    message: Message
    description: str


def times(events: Iterable[Message]) -> Iterator[tuple[Message, int]]:
    """Yield events with their times, microseconds since 1970.

    Raises:
        SourceError: an event has no time.
    """
    for event in events:
        yield event, histories.moment_us(event.double(1))


def values_of(event: Message, time_us: int, plugins: dict[str, str]) -> Iterator[Value]:
    """Yield the values of an event.

    Args:
        event: one.
        time_us: its time.
        plugins: by tag, what this file has said so far; it is added to.

    Raises:
        WireError: it is damaged.
    """
    if _SUMMARY not in event:
        return
    step = event.whole(2)
    for message in event.inner(_SUMMARY).inners(1):
        tag, description = message.text(1), ""
        if _METADATA in message:
            metadata = message.inner(_METADATA)
            plugins[tag] = metadata.inner(1).text(1) or plugins.get(tag, "")
            description = metadata.text(3)
        plugin = plugins.get(tag, "")
        kind = _kind(message, plugin)
        yield Value(kind, tag, plugin, step, time_us, message, description)


def _kind(message: Message, plugin: str) -> str:
    for number, kind in _OLD_FORMS.items():
        if number in message:
            return kind
    if plugin == HPARAMS:
        return HPARAMS
    if _TENSOR not in message:
        return OTHER
    if plugin in {SCALAR, HISTOGRAM, IMAGE, AUDIO, TEXT}:
        return plugin
    found = tensor(message.inner(_TENSOR))
    is_number = found is not None and found.numbers is not None and len(found.numbers) == 1
    return SCALAR if is_number and not plugin else OTHER


def all_values(files: Iterable[EventFile]) -> Iterator[Value]:
    """Yield every value of event files, in their order.

    Raises:
        SourceError: a file is damaged.
    """
    for file in files:
        plugins: dict[str, str] = {}
        for event, time_us in times(file.events()):
            yield from values_of(event, time_us, plugins)


def number(value: Value) -> tuple[float, bool] | None:
    """Return a scalar, and whether it is exactly what was logged; None if it is no number."""
    if _SIMPLE in value.message:
        return value.message.double(_SIMPLE), True
    found = tensor(value.message.inner(_TENSOR))
    if found is None or found.numbers is None or len(found.numbers) != 1:
        return None
    one = found.numbers[0].item()
    return float(one), not isinstance(one, int) or int(float(one)) == one


def histogram_text(value: Value) -> str | None:
    """Return a histogram as our events say it; None if they cannot."""
    if _HISTO in value.message:
        found = _buckets(value.message.inner(_HISTO))
    else:
        found = _triples(tensor(value.message.inner(_TENSOR)))
    return histories.counted(value.tag, *found, value.step) if found else None


def _buckets(histogram: Message) -> tuple[list[float], list[float]] | None:
    """Return edges and counts; a bucket without a bound ends at the least or greatest value."""
    limits, counts = histogram.doubles(6), histogram.doubles(7)
    low, high = histogram.double(1), histogram.double(2)
    if not limits or len(limits) != len(counts):
        return None
    if not counts[0] and len(counts) > 1:
        edges, counts = limits, counts[1:]
    else:
        below = low if low < limits[0] else math.nextafter(limits[0], -math.inf)
        edges = [below, *limits]
    if math.isinf(edges[-1]):
        edges = [*edges[:-1], high if high > edges[-2] else math.nextafter(edges[-2], math.inf)]
    return edges, counts


def _triples(found: Tensor | None) -> tuple[list[float], list[float]] | None:
    """Return edges and counts of a tensor with left, right and count of each bucket."""
    if found is None or found.numbers is None or found.shape[1:] != (_TRIPLE,):
        return None
    if len(found.numbers) % _TRIPLE:
        return None
    left, right, counts = (found.numbers.reshape(-1, _TRIPLE)[:, i].tolist() for i in range(3))
    if not left or left[1:] != right[:-1]:
        return None
    return [*left, right[-1]], counts


def pictures(value: Value) -> list[bytes]:
    """Return the images of a value, each as a file."""
    if _IMAGE in value.message:
        return [value.message.inner(_IMAGE).raw(4)]
    found = tensor(value.message.inner(_TENSOR))
    return [] if found is None else found.texts[_HEAD:]


def sounds(value: Value) -> list[bytes]:
    """Return the sounds of a value, each as a file; labels stand between those of a tensor."""
    if _AUDIO in value.message:
        return [value.message.inner(_AUDIO).raw(4)]
    found = tensor(value.message.inner(_TENSOR))
    if found is None:
        return []
    return found.texts[:: found.shape[1] or 1] if len(found.shape) > 1 else found.texts


def as_json(value: Value) -> dict[str, Any]:
    """Return a value that has no place of its own, as JSON."""
    said: dict[str, Any] = {
        "tag": value.tag,
        "plugin": value.plugin or value.kind,
        "step": value.step,
        "time_us": value.time_us,
    }
    if _HISTO in value.message:
        histogram = value.message.inner(_HISTO)
        names = ("min", "max", "num", "sum", "sum_squares")
        said |= {name: histogram.double(i) for i, name in enumerate(names, 1)}
        return said | {"limits": histogram.doubles(6), "counts": histogram.doubles(7)}
    found = tensor(value.message.inner(_TENSOR)) if _TENSOR in value.message else None
    if found is None:
        return said | {"unread_bytes": len(value.message.raw(_TENSOR))}
    said["shape"] = list(found.shape)
    if found.numbers is not None:
        said["values"] = found.numbers.tolist()
    else:
        said["values"] = [text.decode(errors="replace") for text in found.texts]
    return said


class Session(NamedTuple):
    """What the hparams plugin says of a run: params, its status there, begin and end."""

    params: dict[str, object]
    status: int | None = None
    start_us: int | None = None
    end_us: int | None = None


def session(value: Value) -> Session:
    """Return what a value of the hparams plugin says.

    Raises:
        WireError: it is damaged.
    """
    content = value.message.inner(_METADATA).inner(1).inner(2)
    params: dict[str, object] = {}
    begun = content.inner(3)
    for entry in begun.inners(1):
        params[entry.text(1)] = _plain(entry.inner(2))
    start, end = begun.double(5), content.inner(_END).double(2)
    return Session(
        params,
        content.inner(_END).whole(1) if _END in content else None,
        round(start * 1e6) if start else None,
        round(end * 1e6) if end else None,
    )


def _plain(value: Message) -> object:
    """Return a `google.protobuf.Value`; lists and structs as texts."""
    if _NUMBER in value:
        return value.double(_NUMBER)
    if _TEXT in value:
        return value.text(_TEXT)
    if _BOOL in value:
        return bool(value.whole(_BOOL))
    if _LIST in value:
        return str([_plain(one) for one in value.inner(_LIST).inners(1)])
    if _STRUCT in value:
        entries = value.inner(_STRUCT).inners(1)
        return str({one.text(1): _plain(one.inner(2)) for one in entries})
    return "None"
