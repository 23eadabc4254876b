"""What is an object store asked for, and how many bytes go there?

A lake on a store that counts and does not wait. A writer is driven through its life by `flush`,
each flush with as many points as a writer has gathered by then that logs 10 metrics a second; its
cadence is reckoned from the code's own. `docs/design/001-requests-and-money.md` makes money of
these figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from benchmarks.harness import Figure, scratch
from runlake import ids
from runlake.storage.localfs import LocalFilesystem
from runlake.testing import CountingFilesystem, SlowFilesystem, open_lake
from runlake.upkeep import delta
from runlake.upkeep.compact import Compactor
from runlake.upkeep.vacuum import vacuum
from runlake.writing.lanes import FAR

if TYPE_CHECKING:
    from collections import Counter
    from pathlib import Path

    from benchmarks.harness import Options
    from runlake.lake import Lake

_METRICS: Final = [f"m{number}" for number in range(10)]
_FLUSHES: Final = 64
_DAY_S: Final = 86_400
_SHORT_STEPS: Final = 100


def measure(options: Options) -> list[Figure]:
    """Return requests and bytes of writing, reading and upkeep."""
    segments = options.size(128, quick=8)
    figures = [
        Figure("uploads of a writer in its first hour", _uploads(3600), "uploads"),
        Figure("uploads of a writer in 24 hours", _uploads(_DAY_S), "uploads"),
    ]
    with scratch() as folder:
        figures += _a_long_run(folder, options.size(_FLUSHES, quick=34))
    with scratch() as folder:
        figures += _many_short_runs(folder, segments)
    return figures


def _uploads(seconds: float) -> int:
    """Return how often a writer uploads that always has something new."""
    count, age_s = 0, FAR.first_s
    while age_s < seconds:
        count += 1
        age_s += FAR.wait_s(age_s)
    return count


def _store(folder: Path) -> CountingFilesystem:
    """Return an empty store that counts, and looks far away."""
    return CountingFilesystem(SlowFilesystem(LocalFilesystem(folder / "lake")))


def _open(store: CountingFilesystem, folder: Path, *, read_only: bool = False) -> Lake:
    cache = str(folder / f"cache-{ids.new_nonce()}")
    return open_lake(store, cache=cache, refresh_s=0.0, compact="off", read_only=read_only)


def _sent(store: CountingFilesystem) -> int:
    return sum(call.sent_bytes for call in store.calls)


def _figures(what: str, asked: Counter[str], *, note: str = "") -> list[Figure]:
    """Return one figure for each kind of request."""
    return [
        Figure(f"{what}: {verb}", asked[verb], "requests", note=note)
        for verb in ("PUT", "COPY", "LIST", "GET", "DELETE")
        if asked[verb]
    ]


def _a_long_run(folder: Path, flushes: int) -> list[Figure]:
    """Measure one writer from the first object of a lake to its end."""
    store = _store(folder)
    with _open(store, folder) as lake:
        run = lake.start_run(experiment="requests")
        run.log_params({f"p{number}": number for number in range(20)})
        lake.flush()
        figures = _figures("first run of a new lake and experiment", store.requests)
        step, sent, puts, chance = 0, [], 0, np.random.default_rng(1)
        for _ in range(flushes):
            store.reset()
            for _ in range(int(FAR.longest_s)):
                noise = chance.normal(size=len(_METRICS)).astype(np.float32) / 20
                curve = np.float32(2 / (1 + step / 500)) + noise
                run.log(dict(zip(_METRICS, curve.tolist(), strict=True)), step=step)
                step += 1
            lake.flush()
            puts += store.requests.total()
            sent.append(_sent(store))
        note = f"mean of {flushes}, each of {len(_METRICS) * int(FAR.longest_s)} points"
        figures += [
            Figure("a flush", puts / flushes, "requests", note=note),
            Figure("a flush, bytes sent", sum(sent) / flushes, "bytes", note=note),
            Figure("the longest tail", max(sent), "bytes", note="before the 32nd seals it"),
        ]
        store.reset()
        run.finish()
    figures += _figures("the end of a run and its writer", store.requests)
    stored = sum(entry.size_bytes for entry in store.list("log/"))
    per_point = stored / (step * len(_METRICS))
    return [*figures, Figure("stored a point before compaction", per_point, "bytes")]


def _many_short_runs(folder: Path, count: int) -> list[Figure]:
    """Measure runs of a process each, then answers and upkeep over what they leave behind."""
    store = _store(folder)
    _short_run(store, folder)
    figures = []
    for number in range(1, count + 1):
        store.reset()
        _short_run(store, folder)
        if number in {1, count}:
            what = f"a short run of its own process beside {number} live segments"
            figures += _figures(what, store.requests)
    figures.append(Figure("a short run, bytes sent", _sent(store), "bytes"))
    figures += _asked(store, folder, f"{count} live segments")
    lake = _lake_id(store)
    store.reset()
    keeper = Compactor(store, lake=lake)
    for experiment_id in keeper.experiments():
        keeper.compact(experiment_id)
    note = f"{count} segments of one experiment, and those of partition _lake"
    figures += _figures("compaction", store.requests, note=note)
    figures.append(Figure("compaction, bytes sent", _sent(store), "bytes", note=note))
    store.reset()
    vacuum(store, lake=lake, grace_s=0, is_dry_run=False)
    figures += _figures("vacuum after it", store.requests)
    store.reset()
    delta.publish(store, lake=lake)
    figures += _figures("publishing as Delta, the first time", store.requests)
    store.reset()
    delta.publish(store, lake=lake)
    figures += _figures("publishing again, nothing new", store.requests)
    return figures + _asked(store, folder, "all of it compacted")


def _short_run(store: CountingFilesystem, folder: Path) -> None:
    with _open(store, folder) as lake, lake.start_run(experiment="requests") as run:
        run.log_params({f"p{number}": number for number in range(20)})
        for step in range(_SHORT_STEPS):
            run.log({"loss": 1 / (1 + step)}, step=step)


def _asked(store: CountingFilesystem, folder: Path, state: str) -> list[Figure]:
    """Measure a search by a new process, the same again, and a list of files."""
    figures = []
    with _open(store, folder, read_only=True) as lake:
        for when in ("cold", "warm"):
            store.reset()
            lake.search_runs("metrics.loss < 1")
            figures += _figures(f"a {when} search, {state}", store.requests)
        store.reset()
        lake.files("metrics")
        figures += _figures(f"a list of files, {state}", store.requests)
    return figures


def _lake_id(store: CountingFilesystem) -> str:
    with open_lake(store, read_only=True) as lake:
        lake.refresh()
        assert lake.snapshot is not None
        return lake.snapshot.manifest.lake
