"""Makes the golden lakes of format 1, `data/v1*`, and the answers that they must always give.

    python -m tests.format.make_golden v1-set

They are committed and read for ever by `test_golden.py`: one is made anew only while version 1
is not released, and what came later has a lake of its own. Writers, clock and ids are fixed, so
that each object can be explained below. What a lake must hold to be of use here stands in the
functions that `GOLDEN` names, story by story.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from runlake import clock, ids, schema
from runlake.query.engine import Query
from runlake.settings import Settings
from runlake.storage import layout, manifest
from runlake.storage.engine import Storage
from runlake.storage.localfs import LocalFilesystem
from runlake.storage.names import Claim
from runlake.writing import places, putting
from runlake.writing.events import HybridClock
from runlake.writing.journal import Journal
from runlake.writing.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DATA: Final = Path(__file__).parent / "data"
LAKE: Final = DATA / "v1"

LAKE_ID: Final = "0123456789abcdef0123456789abcdef"
START_US: Final = 1_767_225_600_000_000  # 2026-01-01 00:00:00 UTC
DEFAULT: Final = "0"
SECOND_OWNER: Final = "secondownerofdraft23"

# Questions whose answers are kept. Places and the age of files are no part of an answer.
QUESTIONS: Final = {
    "experiments": """
        SELECT experiment_id, name, lifecycle_stage, creation_time, tags FROM experiments
    """,
    "runs": """
        SELECT run_id, experiment_id, experiment_name, run_name, status, is_stale, start_time,
            end_time, user_id, source_name, parent_run_id, lifecycle_stage
        FROM runs
    """,
    "params": "FROM params",
    "tags": "FROM tags",
    "metrics": "FROM metrics",
    "metric_summary": "FROM metric_summary",
    "artifacts": "FROM artifacts",
    "events": "FROM events",
}


class Fixed:
    """The clock and the ids of the golden lake."""

    def __init__(self) -> None:
        """Begin at the start."""
        self.time_us = START_US
        self.nonces = 0

    def now_us(self) -> int:
        """Return a time that is one second later at each call."""
        self.time_us += 1_000_000
        return self.time_us

    def new_nonce(self) -> str:
        """Return the next number."""
        self.nonces += 1
        return f"{self.nonces:016x}"


class Author:
    """One writer, row by row."""

    def __init__(self, storage: Storage, number: int, experiment_id: str, name: str) -> None:
        """Begin without rows."""
        self.storage = storage
        journal = Journal(None, HybridClock(), mapped=False, limit_bytes=1 << 30)
        self.writer = Writer(writer_id(number), experiment_id, name, journal)

    def say(
        self,
        run: str,
        kind: str,
        key: str = "",
        *,
        num: float | None = None,
        text: str | None = None,
    ) -> None:
        """Append one event."""
        assert self.writer.journal.events([(run, kind, key, num, text)])

    def point(self, run: str, key: str, step: int, value: float) -> None:
        """Append one metric point."""
        key_id = self.writer.journal.key_id(run, key)
        assert self.writer.journal.point(key_id, step, clock.now_us(), value)

    def start(self, run: str, name: str | None = None) -> None:
        """Say what every run begins with."""
        self.say(run, schema.RUN, schema.RUN_START, num=float(clock.now_us()))
        self.say(run, schema.RUN, schema.RUN_AUTO_NAME, text=f"auto-{run[-2:]}")
        self.say(run, schema.RUN, schema.RUN_USER, text="ada")
        self.say(run, schema.RUN, schema.RUN_SOURCE, text="train.py")
        self.status(run, schema.RUNNING)
        if name is not None:
            self.say(run, schema.RUN, schema.RUN_NAME, text=name)

    def status(self, run: str, status: str) -> None:
        """Say how a run stands."""
        self.say(run, schema.STATUS, num=float(clock.now_us()), text=status)

    def put(self, *, seal: bool = False) -> None:
        """Upload the tail."""
        self.writer.upload(self.storage, seal=seal)

    def close(self) -> None:
        """Say that the writer ends, and upload the rest."""
        self.writer.retire()
        self.put(seal=True)


def writer_id(number: int) -> str:
    """Return the ULID of a writer: all of the same millisecond."""
    return f"01KDVDMW00{number:016d}"


def run_id(number: int) -> str:
    """Return the UUIDv7 of a run: all of the same millisecond."""
    return f"019b76da80007000800000000000{number:04x}"


def make(root: Path) -> None:
    """Write the golden lake below an empty folder."""
    storage = Storage(LocalFilesystem(root), Settings())
    storage.ensure_lake()
    _one_writer_merged(storage)
    _two_writers_of_one_run(storage)
    _open_run_with_superseded_tails(storage)
    _run_handed_over(storage)
    _deleted_restored_and_odd_runs(storage)
    _experiments(storage)
    # Nothing is compacted yet: readers must look at the newest manifest all the same.
    empty = manifest.Manifest(lake=LAKE_ID, number=1, nonce=ids.new_nonce(), commit_us=START_US)
    assert storage.fs.put_absent(layout.manifest(1), manifest.encode(empty))


def make_set(root: Path) -> None:
    """Write a lake in which others than its writers say how a run stands."""
    storage = Storage(LocalFilesystem(root), Settings())
    storage.ensure_lake()
    ended, killed, resumed, planned = (run_id(number) for number in range(1, 5))
    author = Author(storage, 1, DEFAULT, "Default")
    for run in (ended, killed, resumed):
        author.start(run)
        author.point(run, "loss", 0, 0.5)
    author.status(ended, schema.FINISHED)
    author.status(resumed, schema.FINISHED)
    author.put(seal=True)
    # Somebody says of each how it stands as a whole: with an end, without, and open again.
    other = Author(storage, 2, DEFAULT, "Default")
    _set(other, ended, schema.FAILED, end_us=clock.now_us())
    _set(other, killed, schema.KILLED)
    _set(other, resumed, schema.RUNNING)
    other.start(planned)
    _set(other, planned, schema.SCHEDULED)
    other.put()
    # The first writer goes on with one: its own word, behind the one that was set, counts again.
    author.point(resumed, "loss", 1, 0.25)
    author.status(resumed, schema.FINISHED)
    author.close()
    other.close()


def _set(author: Author, run: str, status: str, *, end_us: int | None = None) -> None:
    num = None if end_us is None else float(end_us)
    author.say(run, schema.STATUS, schema.STATUS_SET, num=num, text=status)


def _one_writer_merged(storage: Storage) -> None:
    """Writer 1 seals twice, ends and merges; one of the merged segments is not deleted yet."""
    author, run = Author(storage, 1, DEFAULT, "Default"), run_id(1)
    author.start(run, "tidy")
    author.say(run, schema.PARAM, "lr", num=0.1, text="0.1")
    author.say(run, schema.PARAM, "model.kernel", text="rbf")
    author.say(run, schema.TAG, "team", text="vision")
    author.say(run, schema.TAG, "draft", text="yes")
    for step, value in enumerate([1.0, float("inf"), 0.5, float("nan")]):
        author.point(run, "loss", step, value)
    author.put(seal=True)
    author.say(run, schema.TAG, "team", text="language")
    author.say(run, schema.TAG, "draft")
    author.point(run, "loss", 4, float("-inf"))
    author.point(run, "loss", 2, 0.25)
    author.point(run, "acc", -1, 0.75)
    author.put(seal=True)
    author.status(run, schema.FINISHED)
    author.close()
    first = min(entry.key for entry in storage.fs.list(layout.LOG))
    kept = storage.fs.get(first)
    author.writer.merge(storage)
    storage.fs.put(first, kept)


def _two_writers_of_one_run(storage: Storage) -> None:
    """Writers 2 and 3 are ranks of one run and know nothing of each other."""
    run = run_id(2)
    zero = Author(storage, 2, DEFAULT, "Default")
    one = Author(storage, 3, DEFAULT, "Default")
    zero.start(run, "ranks")
    zero.say(run, schema.RUN, schema.RUN_RANK, num=0.0, text="0")
    one.start(run)
    one.say(run, schema.RUN, schema.RUN_RANK, num=1.0, text="1")
    zero.say(run, schema.PARAM, "lr", num=0.1, text="0.1")
    one.say(run, schema.PARAM, "lr", num=0.2, text="0.2")
    one.say(run, schema.TAG, "host", text="node1")
    zero.say(run, schema.TAG, "host", text="node0")
    moment = clock.now_us()
    # Both know `loss` at step 1 and the same time: the greater value is the last one.
    for author, values in ((zero, [0.9, 0.5]), (one, [0.8, 0.7])):
        key_id = author.writer.journal.key_id(run, "loss")
        for step, value in enumerate(values):
            author.writer.journal.point(key_id, step, moment + step, value)
    one.point(run, "broken", 0, float("nan"))
    one.status(run, schema.KILLED)
    one.close()
    zero.status(run, schema.FINISHED)
    zero.close()


def _open_run_with_superseded_tails(storage: Storage) -> None:
    """Writer 4 still runs: it has uploaded its tail three times, behind one sealed segment."""
    author, run = Author(storage, 4, DEFAULT, "Default"), run_id(3)
    author.start(run)
    author.put(seal=True)
    for step in range(3):
        author.point(run, "loss", step, 1.0 / (step + 1))
        author.put()
    author.say("", schema.HEARTBEAT)
    author.put()


def _run_handed_over(storage: Storage) -> None:
    """Writer 5 ends while its run goes on; writer 6 goes on with it."""
    run = run_id(4)
    old = Author(storage, 5, DEFAULT, "Default")
    old.start(run, "handed over")
    old.point(run, "loss", 0, 3.0)
    old.close()
    new = Author(storage, 6, DEFAULT, "Default")
    new.status(run, schema.RUNNING)
    new.point(run, "loss", 1, 2.0)
    new.status(run, schema.FINISHED)
    new.close()


def _deleted_restored_and_odd_runs(storage: Storage) -> None:
    """Writer 7 carries four runs, among them kinds that no version 1 reader knows."""
    author = Author(storage, 7, DEFAULT, "Default")
    deleted, restored, odd, imported = run_id(5), run_id(6), run_id(7), "imported-run_7"
    for run in (deleted, restored, odd, imported):
        author.start(run)
    author.status(deleted, schema.FINISHED)
    author.status(restored, schema.FINISHED)
    author.say(deleted, schema.DELETE)
    author.say(restored, schema.DELETE)
    author.say(restored, schema.RESTORE)
    author.say(odd, schema.RUN, schema.RUN_PARENT, text=run_id(1))
    author.say(odd, "gizmo", "lever", num=7.0, text="a kind from the future")
    for number, size in enumerate((3, 5)):
        about = json.dumps({"sha256": f"{number:064x}", "media_type": "text/plain"})
        author.say(odd, schema.ARTIFACT, "notes/a.txt", num=float(size), text=about)
    author.say(odd, schema.NOTE, "traceback", text="ValueError: no\n")
    author.status(odd, schema.FAILED)
    author.status(imported, schema.SCHEDULED)
    author.close()


def _experiments(storage: Storage) -> None:
    """Writer 12 says in the reserved partition what the claims of names have made true."""
    author = Author(storage, 12, schema.RESERVED_PARTITION, schema.RESERVED_PARTITION)
    draft, trash = ids.derived_experiment_id("draft"), ids.derived_experiment_id("trash")
    _claim(storage, author, "draft", draft, tags={"stage": "early", "owner": "ada"})
    _claim(storage, author, "trash", trash)
    author.put()
    # `draft` becomes `final`, and its name is given to a second owner.
    _claim(storage, author, "final", draft, is_rename=True)
    _claim(storage, author, "draft", SECOND_OWNER, number=2)
    author.say(draft, schema.EXPERIMENT_TAG, "stage", text="late")
    author.say(draft, schema.EXPERIMENT_TAG, "owner")
    author.say(trash, schema.EXPERIMENT_DELETE)
    author.say(SECOND_OWNER, schema.EXPERIMENT_DELETE)
    author.say(SECOND_OWNER, schema.EXPERIMENT_RESTORE)
    author.close()
    # Writer 8 knew the experiment by its old name; writer 10's host never reached the store to
    # claim `offline`, so that only its footers name the experiment.
    for number, experiment_id, name in (
        (8, draft, "draft"),
        (9, trash, "trash"),
        (10, ids.derived_experiment_id("offline"), "offline"),
    ):
        of_run = Author(storage, number, experiment_id, name)
        of_run.start(run_id(number))
        of_run.point(run_id(number), "acc", 0, number / 10)
        of_run.status(run_id(number), schema.FINISHED)
        of_run.close()


def _claim(
    storage: Storage,
    author: Author,
    name: str,
    experiment_id: str,
    *,
    number: int = 1,
    tags: dict[str, str] | None = None,
    is_rename: bool = False,
) -> None:
    made = Claim(
        name=name,
        experiment_id=experiment_id,
        time_us=clock.now_us(),
        user="ada",
        nonce=ids.new_nonce(),
        number=number,
        tags=tags or {},
    )
    assert storage.make_claim(made)
    if is_rename:
        author.say(experiment_id, schema.EXPERIMENT_RENAME, name)
        return
    about = {
        "time_us": made.time_us,
        "user": made.user,
        "artifact_location": made.artifact_location,
        "tags": dict(made.tags),
    }
    text = json.dumps(about, separators=(",", ":"))
    author.say(experiment_id, schema.EXPERIMENT_CREATE, name, text=text)
    for key, value in made.tags.items():
        author.say(experiment_id, schema.EXPERIMENT_TAG, key, text=value)


def answers(root: Path) -> dict[str, list[str]]:
    """Return what this runlake answers about a lake: for each question its rows, as text."""
    _, tables = Storage(LocalFilesystem(root), Settings()).read()
    query = Query(tables)
    try:
        return {name: rows_of(query.sql, asked) for name, asked in QUESTIONS.items()}
    finally:
        query.close()


def rows_of(sql: Callable[[str], Any], question: str) -> list[str]:
    """Return the sorted rows of a question, each as JSON in which NaN equals itself."""
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in sql(question).to_pylist())


def age(root: Path) -> None:
    """Give all files the same old time, as if the lake had been quiet for long."""
    seconds = START_US // 1_000_000
    for file in root.rglob("*.*"):
        os.utime(file, (seconds, seconds))


def fix(patch: pytest.MonkeyPatch) -> None:
    """Fix whatever differs from one run of this script to the next."""
    fixed = Fixed()
    patch.setattr(clock, "now_us", fixed.now_us)
    patch.setattr(ids, "new_nonce", fixed.new_nonce)
    patch.setattr(ids, "new_lake_id", lambda: LAKE_ID)
    patch.setattr(places, "host", lambda: "golden")
    patch.setattr(places, "boot_id", lambda: "")
    patch.setattr(os, "getpid", lambda: 4242)
    patch.setattr(putting, "__version__", "0.1.0")


GOLDEN: Final[Mapping[str, Callable[[Path], None]]] = {LAKE.name: make, "v1-set": make_set}
"""What makes each lake, by its folder."""
LIKE: Final = {"v1-zlib": LAKE.name}
"""Lakes of the same story and answers as another, which an earlier runlake wrote: its states are
compressed by zlib. Such a lake is not made anew."""


def kept(name: str) -> dict[str, list[str]]:
    """Return the answers that a lake must give."""
    found: dict[str, list[str]] = json.loads((DATA / f"{name}.json").read_text("utf-8"))
    return found


def main() -> None:
    """Make the lakes that the command line names, then ask them."""
    for name in sys.argv[1:]:
        _make(name)


def _make(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        fix(patch)
        fresh = Path(folder) / "lake"
        GOLDEN[name](fresh)
        age(fresh)
        shutil.rmtree(DATA / name, ignore_errors=True)
        shutil.copytree(fresh, DATA / name)
        found = answers(fresh)
    (DATA / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
