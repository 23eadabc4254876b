"""Which live segments are ripe: their writers will not replace them, so they may be compacted.

It is never unsafe to take one that is not: its writer's next upload then begins below the
watermark, and the rows below it are skipped. It is only work done twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from runlake import ids, schema
from runlake.errors import FormatError
from runlake.storage import segments
from runlake.storage.filesystem import Range

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.segments import Footer
    from runlake.storage.snapshot import LiveSegment, Snapshot

QUIET_S: Final = 900
"""After so long without an object the last segment of an open writer is taken as well."""
SEALED_BYTES: Final = 256 << 10
"""A segment of this length was sealed: its writer goes on behind it."""
_LOOKED_INTO: Final = 32


def is_settled(segment: LiveSegment, *, now_us: int) -> bool:
    """Tell from a listing whether the newest segment of a writer is unlikely to be replaced.

    Args:
        segment: the newest of its writer.
        now_us: the store's clock.
    """
    is_quiet = now_us - segment.entry.time_us > QUIET_S * 1_000_000
    return segment.name.merged or is_quiet or segment.entry.size_bytes >= SEALED_BYTES


def has_ended(footer: Footer) -> bool:
    """Tell whether a writer has said that it ends, or is one of columns.

    Segments of columns are finished when they are put, and say nothing but points.
    """
    kinds = footer.state.facts["kind"]
    return not len(kinds) or schema.CLOSE in kinds.unique().to_pylist()


def count(fs: Filesystem, snapshot: Snapshot, experiment_id: str, *, most: int) -> int:
    """Return about how many live segments of an experiment are ripe.

    Names tell of all but the newest segment of each writer. Of these a few are looked into,
    and only if it matters, so that a thousand open writers are not taken for work to do.

    Args:
        fs: the lake's storage.
        snapshot: just taken.
        experiment_id: the partition.
        most: the number that is asked about.

    Returns:
        The number; where it is certain that it is not above `most`, any that is not.

    Raises:
        StorageError: the store cannot be read.
    """
    live = [each for each in snapshot.segments if each.name.experiment_id == experiment_id]
    newest = {each.name.writer: each for each in live}
    unsure = [each for each in newest.values() if not is_settled(each, now_us=snapshot.taken_us)]
    sure = len(live) - len(unsure)
    if sure > most or len(live) <= most:
        return sure
    # In the order of their writers' ids, and so of their age: some of each age, and others each
    # time, so that who looks next does not err alike.
    each = -(-len(unsure) // _LOOKED_INTO)
    asked = unsure[int(ids.jitter() * each) :: each]
    return sure + len(unsure) * _count_ended(fs, asked) // len(asked)


def _count_ended(fs: Filesystem, asked: Sequence[LiveSegment]) -> int:
    ranges = [Range(each.entry.key, 0, each.entry.size_bytes) for each in asked]
    try:
        found = zip(asked, fs.get_ranges(ranges), strict=True)
    except FileNotFoundError:  # replaced since it was listed: some of them at least are at work
        return 0
    return sum(_is_ended(segment, data) for segment, data in found)


def _is_ended(segment: LiveSegment, data: bytes) -> bool:
    try:
        return has_ended(segments.read_footer(data, key=segment.entry.key))
    except FormatError:
        return False
