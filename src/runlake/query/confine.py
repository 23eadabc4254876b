"""What a query may take, and how a connection is closed against everything but reading.

DuckDB accounts for the rows that it holds and stops between one chunk of rows and the next; so
memory and time are bounded for whatever is made of many rows. One call of a function over one
huge value (`repeat('x', 1e9)`) is neither counted nor stopped midway. A process that answers
strangers therefore bounds itself as well (`bounded_memory`), and ends when it must.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import resource
import shutil
import tempfile
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar, final

from runlake import clock
from runlake._lazy import lazy
from runlake.errors import LimitExceededError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import duckdb
    import pyarrow as pa
else:
    duckdb = lazy("duckdb")
    pa = lazy("pyarrow")

_Answer = TypeVar("_Answer")

# Training goes on beside the questions.
_SHARE: Final = 2
_LEAST_MEMORY_BYTES: Final = 128 << 20
# What does not fit into memory goes to a folder of ours, up to so many times the memory, and
# never over half of what the disk has left.
_SPILL_TIMES: Final = 4
_SPILL: Final = "runlake-spill-"
_OWNER: Final = "owner"
_CGROUPS: Final = Path("/sys/fs/cgroup")
_CGROUP_FILES: Final = (("", "memory.max"), ("memory", "memory.limit_in_bytes"))
_AGAIN_S: Final = 0.05
# A run with thousands of keys is a row of many KiB; so a batch has few rows.
BATCH_ROWS: Final = 1 << 14
# How DuckDB's words begin, and what it calls the error.
_KINDS: Final = {
    "Out of Memory Error": "OutOfMemoryException",
    "INTERRUPT Error": "InterruptException",
    "IO Error": "IOException",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What all queries of one database may take together.

    Attributes:
        memory_bytes: rows held in memory; None: half of what the machine, or its cgroup, has.
        threads: threads that work; None: one for each core.
    """

    memory_bytes: int | None = None
    threads: int | None = None


@final
class Watch:
    """Stops what runs on a cursor when the time is over, and counts the rows of an answer."""

    def __init__(self, timeout_s: float | None = None, max_rows: int | None = None) -> None:
        """Keep both; the time runs while a cursor is watched.

        Args:
            timeout_s: seconds that DuckDB may work; None: no limit.
            max_rows: greatest number of rows of an answer; None: no limit.
        """
        self._timeout_s = timeout_s
        self._max_rows = max_rows
        self._used_s = 0.0

    @contextmanager
    def over(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Watch a cursor while the block runs.

        Args:
            cursor: nobody else's.

        Yields:
            Nothing.

        Raises:
            LimitExceededError: the time was over.
        """
        if self._timeout_s is None:
            with _interruptible():
                yield
            return
        began_s, done, is_over = clock.monotonic_s(), threading.Event(), threading.Event()
        remaining_s = max(0.0, self._timeout_s - self._used_s)

        def stop() -> None:
            if done.wait(remaining_s):
                return
            is_over.set()
            # DuckDB forgets an interruption that comes before it has begun.
            while not done.wait(_AGAIN_S):
                cursor.interrupt()

        thread = threading.Thread(target=stop, name="runlake-watch", daemon=True)
        thread.start()
        try:
            with _interruptible():
                yield
        except (duckdb.Error, OSError) as error:
            if is_over.is_set():
                raise self._timed_out() from error
            raise
        finally:
            done.set()
            thread.join()
            self._used_s += clock.monotonic_s() - began_s

    def fetch(
        self, relation: duckdb.DuckDBPyRelation, cursor: duckdb.DuckDBPyConnection
    ) -> pa.Table:
        """Run a relation and return its rows.

        Args:
            relation: what to run.
            cursor: its own.

        Returns:
            The rows.

        Raises:
            LimitExceededError: there are more rows than may be.
        """
        if self._max_rows is None:
            whole: pa.Table = _attended(relation.to_arrow_table, cursor)
            return whole
        kept, count = [], 0
        rows = min(BATCH_ROWS, self._max_rows + 1)
        schema, batches = read_batches(relation, cursor, rows=rows)
        for batch in batches:
            kept.append(batch)
            count += batch.num_rows
            if count > self._max_rows:
                raise LimitExceededError(
                    f"the answer has more than {self._max_rows:,} rows, which is the limit. "
                    "Aggregate, filter, or add LIMIT; export() writes any number to a file."
                )
        return pa.Table.from_batches(kept, schema)

    def _timed_out(self) -> LimitExceededError:
        return LimitExceededError(
            f"the query was stopped after {self._timeout_s:g} s, which is the limit. Filter by "
            "run_id and key, which files are sorted by, or ask for more time."
        )


UNHURRIED: Final = Watch()


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C be what it is everywhere else; DuckDB makes another error of it."""
    try:
        yield
    except RuntimeError as error:
        if str(error) == "Query interrupted":
            raise KeyboardInterrupt from None
        raise


def _attended(call: Callable[[], _Answer], cursor: duckdb.DuckDBPyConnection) -> _Answer:
    """Let DuckDB work in a thread, so that Ctrl-C stops it at once.

    Where the main thread itself waits inside DuckDB, it may look for signals only at the end of
    the query.

    Args:
        call: what DuckDB does.
        cursor: that it is done on.
    """
    if threading.current_thread() is not threading.main_thread():
        return call()
    found: Future[_Answer] = Future()
    done = threading.Event()

    def work() -> None:
        try:
            found.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            found.set_exception(error)
        done.set()

    threading.Thread(target=work, name="runlake-query", daemon=True).start()
    try:
        # Where a signal restarts what it interrupts, waiting for ever would not hear it.
        while not done.wait(_AGAIN_S):
            pass
    except KeyboardInterrupt:
        while not done.wait(_AGAIN_S):
            cursor.interrupt()  # which is forgotten where it comes before the query has begun
        raise
    return found.result()


def read_batches(
    relation: duckdb.DuckDBPyRelation, cursor: duckdb.DuckDBPyConnection, *, rows: int
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Run a relation and give its rows as they come.

    Args:
        relation: what to run.
        cursor: its own.
        rows: of a batch.

    Returns:
        The columns, and the batches.

    Raises:
        duckdb.Error: at any batch, where Arrow's stream has only the words.
    """
    reader = _attended(lambda: relation.to_arrow_reader(rows), cursor)
    return reader.schema, _batches(reader, cursor)


def _batches(
    reader: pa.RecordBatchReader, cursor: duckdb.DuckDBPyConnection
) -> Iterator[pa.RecordBatch]:
    with reader:
        while True:
            try:
                batch = _attended(reader.read_next_batch, cursor)
            except StopIteration:
                return
            except (OSError, pa.ArrowException) as error:
                words = str(error)
                kinds = [name for prefix, name in _KINDS.items() if words.startswith(prefix)]
                raise getattr(duckdb, kinds[0] if kinds else "Error")(words) from error
            yield batch


def config(limits: Limits, *, confined: bool) -> dict[str, Any]:
    """Return the settings to open a database with.

    Args:
        limits: what its queries may take.
        confined: it will be locked, and does not see the variables of the program.
    """
    memory_bytes = limits.memory_bytes or default_memory_bytes()
    spill = spill_folder(os.getpid())
    spill_bytes = min(_SPILL_TIMES * memory_bytes, shutil.disk_usage(spill).free // 2)
    settings: dict[str, Any] = {
        "memory_limit": f"{memory_bytes}B",
        "temp_directory": str(spill),
        "max_temp_directory_size": f"{spill_bytes}B",
    }
    if limits.threads is not None:
        settings["threads"] = limits.threads
    if confined:
        settings |= {
            "python_enable_replacements": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "allow_extension_repositories": "forbidden",
            "allow_persistent_secrets": False,
        }
    return settings


def lock(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> None:
    """Close a database for ever: no file but these, no network, no extension, no setting.

    Args:
        connection: any connection to it.
        paths: the files that it may read.
    """
    # A list of thousands of paths is a value, not a text to be parsed.
    connection.execute("SET allowed_paths = $1", [list(paths)])
    connection.execute(
        "SET enable_external_access = false;"
        # Each cursor has its own; our own statements name tables by it.
        "SET allowed_configs = ['search_path'];"
        "SET lock_configuration = true"
    )


def out_of_memory(limits: Limits, error: Exception) -> LimitExceededError:
    """Return the error for a query that needed more memory than it may take."""
    memory_bytes = limits.memory_bytes or default_memory_bytes()
    return LimitExceededError(
        f"the query needs more memory than the {memory_bytes >> 20:,} MiB that it may take "
        f"(RUNLAKE_QUERY_MEMORY_BYTES). Filter, aggregate, or ask for fewer columns. "
        f"DuckDB says: {str(error).partition(chr(10))[0]}"
    )


@cache
def default_memory_bytes() -> int:
    """Return half of the memory that this process may have."""
    return max(_LEAST_MEMORY_BYTES, _machine_memory_bytes() // _SHARE)


def _machine_memory_bytes() -> int:
    """Return the memory of the machine, or of the cgroup that this process runs in."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            for controller, name in _CGROUP_FILES:
                if controller == controllers or controller in controllers.split(","):
                    found += _cgroup_limits(_CGROUPS / controller, path.lstrip("/"), name)
    return min(found)


def _cgroup_limits(root: Path, path: str, name: str) -> list[int]:
    """Return the limits of a cgroup and of those above it."""
    found = []
    place = root / path
    for folder in (place, *place.parents):
        with suppress(OSError, ValueError):
            found.append(int((folder / name).read_text("utf-8")))
        if folder == root:
            break
    return found


@cache
def spill_folder(pid: int) -> Path:
    """Return the folder for what does not fit into memory; it goes when the process ends.

    What a killed process left goes when the next one asks for its folder.

    Args:
        pid: this process; a forked child makes its own.
    """
    _sweep_spills(Path(tempfile.gettempdir()))
    made = Path(tempfile.mkdtemp(prefix="runlake-"))
    # Held open until the process ends, however it ends; named as ours only when it is locked.
    owner = (made / _OWNER).open("wb")
    fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = made.rename(made.with_name(_SPILL + made.name.removeprefix("runlake-")))
    # Threads that ask first, at once, make a folder each: all of them are held, and go.
    _owned[str(folder)] = owner
    atexit.register(_delete_spill, str(folder), pid)
    return folder


_owned: dict[str, BinaryIO] = {}


def _sweep_spills(root: Path) -> None:
    """Delete the folders of processes of this user that are no more."""
    for owner in root.glob(f"{_SPILL}*/{_OWNER}"):
        with suppress(OSError), owner.open("rb") as opened:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(owner.parent, ignore_errors=True)


def _delete_spill(folder: str, pid: int) -> None:
    if os.getpid() == pid:  # a forked child inherits its parent's exit handlers
        shutil.rmtree(folder, ignore_errors=True)
        _owned.pop(folder).close()


@contextmanager
def bounded_memory(limit_bytes: int) -> Iterator[None]:
    """Let this process take no more than so much memory on top of what it has, on Linux.

    For a process that does one thing: a request beyond it fails in every thread, and fails
    soundly in DuckDB and Arrow.

    Args:
        limit_bytes: what may be added.

    Yields:
        Nothing.
    """
    try:
        fields = Path("/proc/self/statm").read_text("utf-8").split()
    except OSError:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    data_bytes = int(fields[5]) * os.sysconf("SC_PAGE_SIZE")
    wanted = data_bytes + limit_bytes
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
