"""Segments of this process on their way into the store, where the same rows may be already."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from runlake import disks, ids
from runlake._version import __version__
from runlake.errors import ConflictError, StorageError
from runlake.storage import segments
from runlake.writing import places

if TYPE_CHECKING:
    import pyarrow as pa

    from runlake.storage.engine import Storage
    from runlake.storage.layout import SegmentName
    from runlake.storage.state import State

_PUT_TRIES: Final = 5


def put(storage: Storage, name: SegmentName, data: bytes, table: pa.Table) -> None:
    """Put a segment under its name, where the same rows may be already.

    Args:
        storage: of the lake.
        name: its name.
        data: the file.
        table: its rows.

    Raises:
        ConflictError: other rows are there.
        StorageError: the store refused.
    """
    for _ in range(_PUT_TRIES):
        if storage.append(name, data):
            return
        # The same rows under another nonce: an earlier try of ours, or another recoverer's.
        try:
            there = storage.fs.get(name.key)
        except FileNotFoundError:  # consumed and vacuumed since; nobody can tell now what it held
            continue
        footer = segments.read_footer(there, key=name.key)
        if footer.header.digest == segments.digest(table):
            return
        message = (
            f"{name.key} holds other rows than this writer's, written by {footer.header.host} "
            f"pid {footer.header.pid}: the same writer runs twice (a restored VM snapshot?)."
        )
        raise ConflictError(message, url=storage.fs.url)
    message = f"{name.key} came and went {_PUT_TRIES} times. Try again."
    raise StorageError(message, url=storage.fs.url)


def encode(name: SegmentName, experiment_name: str, table: pa.Table, current: State) -> bytes:
    """Return the bytes of a segment under its name, written by this process.

    Args:
        name: which rows it holds, and whose.
        experiment_name: as the writer knows it.
        table: the rows, columns of `segment_schema`.
        current: the writer's cumulative state behind them.
    """
    header = segments.Header(
        writer=name.writer,
        experiment_id=name.experiment_id,
        experiment_name=experiment_name,
        first=name.first,
        last=name.last,
        digest=segments.digest(table),
        nonce=ids.new_nonce(),
        host=places.host(),
        pid=os.getpid(),
        boot_id=disks.boot_id(),
        version=__version__,
    )
    return segments.encode(table, header, current)
