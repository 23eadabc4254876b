"""A store in memory as stores are: it tears listings, loses answers, fails, and is late.

What is modelled, and what a store may do by `docs/spec/v1.md`, "What the filesystem must offer":

- Every verb is a request of its own, each page of a listing and each object of a read or a
  deletion too, and others act between any two requests, and between a request and its answer.
- A put, a copy or the deletion of one object is atomic; reads of objects see the last write.
- A request fails before its effect, or after it (the answer is lost), or its effect comes a long
  time after the failure was told. An actor dies at a request in the same three ways.
- A request may stall for long before it arrives, above all one that commits.
- A listing comes page by page in the order of keys, each page as the store then is ("pages");
  or in any order, and again until nothing changes, with everything that was seen ("disk"); or
  pages are as the store was up to `lag_us` ago, later pages never older than earlier ones ("lag");
  or it leaves out any object that was put since it began or less than `lag_us` before, unless what
  that one covers is deleted already ("torn"). The last two are what network disks do, and are
  beyond what the document asks of a store; a vacuum there has a grace longer than the lag.
- The store's clock stamps objects, in whole seconds where `is_coarse`; those of hosts are off.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeVar, final

from runlake.errors import StorageError
from runlake.storage import layout
from runlake.storage.filesystem import Chunks, Entries, Entry, Filesystem, Range, missing
from runlake.testing.filesystems import SimulatedCrash
from tests.simulation.turns import Actor

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from runlake.storage.layout import SegmentName
    from runlake.storage.source import Watch
    from tests.simulation.turns import Turns

T = TypeVar("T")

PAGES: Final = "pages"
DISK: Final = "disk"
LAG: Final = "lag"
TORN: Final = "torn"
_SECOND_US: Final = 1_000_000
_ANSWER_LATE: Final = 0.3
_MOST_LATE_STEPS: Final = 200


class Draw(Protocol):
    """Chooses, by the seed."""

    def __call__(self, name: str, choices: Sequence[T]) -> T:
        """Return one of some choices."""


class Stored(NamedTuple):
    """An object."""

    data: bytes
    time_us: int


class Change(NamedTuple):
    """One change of the store, as it was before."""

    time_us: int
    key: str
    before: Stored | None


class Deed(NamedTuple):
    """Who asked for something, and if it was a vacuum, when that began."""

    name: str
    vacuum_us: int | None


class Deleted(NamedTuple):
    """Who deleted an object, and when."""

    deed: Deed
    time_us: int


class Nature:
    """How a store behaves in one world."""

    def __init__(self, draw: Draw, *, step_us: int) -> None:
        """Draw it, for a world in which a step takes so long on average."""
        self.listing: str = draw("listing", [PAGES, PAGES, PAGES, DISK, LAG, TORN])
        self.page: int = draw("page", [1, 2, 5, 50])
        is_late = self.listing in {LAG, TORN}
        self.lag_us = draw("lag", [5, 40]) * step_us if is_late else 0
        self.is_coarse: bool = draw("coarse clock", [True, True, False, False, False])
        failures: float = draw("failures", [0.0, 0.0, 0.02, 0.08])
        self.before, self.after, self.late = failures, failures, failures / 4
        self.stalls: float = draw("stalls", [0.0, 0.01, 0.03])
        self.commit_stalls: float = draw("stalls of commits", [0.0, 0.0, 0.4])


@final
class Store:
    """The objects of a lake, and those who watch over them.

    Attributes:
        objects: what is there now.
        deleted: of each object that is gone who deleted it last.
        put_at: when each object was put, by the true time.
        on_put: called behind each put with the key.
        on_delete: called behind each deletion with the key and who did it.
        told: called with each request, for the trace.
    """

    def __init__(self, turns: Turns, chance: random.Random, nature: Nature) -> None:
        """Begin empty."""
        self.turns, self.chance, self.nature = turns, chance, nature
        self.objects: dict[str, Stored] = {}
        self.deleted: dict[str, Deleted] = {}
        self.put_at: dict[str, int] = {}
        self.is_quiet = False
        self.on_put: Callable[[str], None] = lambda _: None
        self.on_delete: Callable[[str, Deed], None] = lambda _key, _deed: None
        self.told: Callable[[str], None] | None = None
        self._changes: list[Change] = []

    def now_us(self) -> int:
        """Return the store's clock."""
        return self.stamp(self.turns.now_us)

    def stamp(self, time_us: int) -> int:
        """Return a time as the store says it."""
        return time_us // _SECOND_US * _SECOND_US if self.nature.is_coarse else time_us

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self._note(key)
        self.objects[key] = Stored(data, self.now_us())
        self.put_at[key] = self.turns.now_us
        self.on_put(key)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; tell whether it was written."""
        if key in self.objects:
            return False
        self.put(key, data)
        return True

    def get(self, key: str) -> bytes:
        """Return an object."""
        try:
            return self.objects[key].data
        except KeyError as error:
            raise missing("sim", key) from error

    def copy(self, source: str, target: str) -> None:
        """Copy an object."""
        self.put(target, self.get(source))

    def delete(self, key: str, deed: Deed) -> None:
        """Delete an object."""
        if key in self.objects:
            self._note(key)
            del self.objects[key]
            self.deleted[key] = Deleted(deed, self.turns.now_us)
            self.on_delete(key, deed)

    def view(self, time_us: int) -> dict[str, Stored]:
        """Return the objects as they were at a time."""
        found = dict(self.objects)
        for change in reversed(self._changes):
            if change.time_us <= time_us:
                break
            if change.before is None:
                found.pop(change.key, None)
            else:
                found[change.key] = change.before
        return found

    def changes_since(self, count: int) -> list[Change]:
        """Return the changes behind the first `count`."""
        return self._changes[count:]

    @property
    def change_count(self) -> int:
        """How many changes there were."""
        return len(self._changes)

    def _note(self, key: str) -> None:
        self._changes.append(Change(self.turns.now_us, key, self.objects.get(key)))


@final
class Client(Filesystem):
    """One actor's view of the store."""

    URL: Final = "memory://sim"

    def __init__(self, store: Store, actor: Actor | None, *, url: str = URL) -> None:
        """Act for an actor; None for one who is never disturbed."""
        self.url = url
        self.is_local = False
        self.conditional_create: bool | None = True
        self._store, self._actor = store, actor
        self._chance = store.chance
        self._changed_us = 0  # a listing that lags shows its own changes to whoever made them

    def local_file(self, key: str) -> Path:
        """Raise: an object in memory is no file."""
        raise StorageError(f"{key} is in memory", url=self.url)

    def list(self, prefix: str) -> Entries:
        """Return all objects whose key starts with `prefix`, torn as listings may be."""
        store = self._store
        if self._actor is None or store.is_quiet:
            return _entries(store.objects, prefix)
        if store.nature.listing in {DISK, TORN}:
            return self._list_disk(prefix)
        found: Entries = []
        seen_us = max(store.turns.now_us - store.nature.lag_us, self._changed_us)
        while True:
            self._before("list", prefix)
            after = found[-1].key if found else ""
            seen_us = self._chance.randint(seen_us, store.turns.now_us)
            view = store.objects if store.nature.listing == PAGES else store.view(seen_us)
            rest = [entry for entry in _entries(view, prefix) if entry.key > after]
            found += rest[: store.nature.page]
            self._after("list", prefix)
            if len(rest) <= store.nature.page:
                return found

    def _list_disk(self, prefix: str) -> Entries:
        store = self._store
        self._before("list", prefix)
        first = _entries(store.objects, prefix)
        start = store.change_count
        self._after("list", prefix)
        found = {entry.key: entry for entry in _entries(store.objects, prefix)}
        for entry in first:  # what went meanwhile may have been seen before
            if entry.key not in found and self._chance.random() < 0.5:
                found[entry.key] = entry
        for change in store.changes_since(start):  # or came and went
            if change.before is not None and change.key.startswith(prefix):
                entry = Entry(change.key, len(change.before.data), change.before.time_us)
                if self._chance.random() < 0.5:
                    found.setdefault(change.key, entry)
        listed = [found[key] for key in sorted(found)]
        if store.nature.listing == DISK:
            return listed
        return [entry for entry in listed if not self._is_late(entry.key)]

    def _is_late(self, key: str) -> bool:
        """Tell whether a torn listing leaves an object out."""
        store = self._store
        stored = store.objects.get(key)
        since_us = store.turns.now_us - store.nature.lag_us
        if stored is None or store.put_at[key] < since_us or self._chance.random() < 0.5:
            return False
        name = layout.parse_segment(key)
        gone = map(layout.parse_segment, store.deleted)
        return name is None or not any(old is not None and _covers(name, old) for old in gone)

    def get(self, key: str) -> bytes:
        """Return a whole object."""
        return self._request("get", key, lambda: self._store.get(key))

    def get_ranges(self, ranges: Sequence[Range]) -> Chunks:
        """Return the bytes of many ranges, each as the store then is."""
        found: Chunks = []
        for key, start, end in ranges:
            if not found or self._chance.random() < _ANSWER_LATE:
                found.append(self.get(key)[start:end])
            else:
                found.append(self._store.get(key)[start:end])
        return found

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self._request("put", key, lambda: self._store.put(key, data), is_write=True)

    def put_absent(self, key: str, data: bytes) -> bool:
        """Write an object if there is none; what the store says is settled by reading back."""
        is_sure = True
        try:
            if self._request("create", key, lambda: self._store.create(key, data), is_write=True):
                return True
        except StorageError:
            if self._chance.random() < 0.5:
                raise
            is_sure = False
        try:
            return self.read_back(key, data)
        except FileNotFoundError as error:
            if is_sure:  # refused, and gone since
                return False
            raise StorageError(f"{key} may come or not", url=self.url) from error

    def read_back(self, key: str, data: bytes) -> bool:
        """Tell whether an object that is there is ours."""
        return self.get(key) == data

    def upload(self, key: str, file: Path, *, watch: Watch | None = None) -> None:
        """Write a file to a key."""
        data = file.read_bytes()
        if watch is not None:
            watch.read(data)
        self._request("upload", key, lambda: self._store.put(key, data), is_write=True)

    def download(self, key: str, file: Path) -> None:
        """Write an object to a file."""
        data = self._request("download", key, lambda: self._store.get(key))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)

    def copy(self, source: str, target: str) -> None:
        """Copy an object."""
        self._request("copy", target, lambda: self._store.copy(source, target), is_write=True)

    def delete_many(self, keys: Iterable[str]) -> None:
        """Delete objects, one after another."""
        actor = self._actor or Actor("nobody")
        deed = Deed(actor.name, actor.vacuum_us if actor.is_vacuum else None)
        for key in keys:
            self._request("delete", key, partial(self._store.delete, key, deed), is_write=True)

    def now_us(self) -> int:
        """Return the store's clock."""
        return self._store.now_us()

    def probe(self) -> bool:
        """Tell that the store creates conditionally."""
        return True

    def _request(
        self, verb: str, key: str, effect: Callable[[], T], *, is_write: bool = False
    ) -> T:
        store = self._store
        if self._actor is None or store.is_quiet:
            return effect()
        self._before(verb, key, effect if is_write else None)
        if self._chance.random() < store.nature.late and is_write:
            store.turns.later(self._chance.randint(1, _MOST_LATE_STEPS), _forgiving(effect))
            raise self._failure(verb, key, "its effect comes late")
        result = effect()
        if is_write:
            self._changed_us = store.turns.now_us
        self._after(verb, key)
        return result

    def _before(self, verb: str, key: str, write: Callable[[], object] | None = None) -> None:
        """Wait for the turn; fail or die before the effect if it is time for that."""
        store, actor = self._store, self._actor
        assert actor is not None
        if actor.is_dead:
            raise SimulatedCrash
        store.turns.pause()
        if store.told is not None:
            store.told(f"{actor.name}: {verb} {key}")
        if actor.crash_in is not None:
            actor.crash_in -= 1
            if actor.crash_in <= 0:
                self._die(write)
        is_commit = verb == "create" and key.startswith(layout.MANIFESTS)
        if self._chance.random() < (
            store.nature.commit_stalls if is_commit else store.nature.stalls
        ):
            store.turns.sleep(self._chance.randint(10, _MOST_LATE_STEPS))
        if self._chance.random() < store.nature.before:
            raise self._failure(verb, key, "before its effect")

    def _after(self, verb: str, key: str) -> None:
        """Wait for the answer, which may be lost."""
        if self._chance.random() < _ANSWER_LATE:
            self._store.turns.pause()
        if self._chance.random() < self._store.nature.after:
            raise self._failure(verb, key, "after its effect")

    def _die(self, write: Callable[[], object] | None) -> None:
        store, actor = self._store, self._actor
        assert actor is not None
        actor.is_dead = True
        if store.told is not None:
            store.told(f"{actor.name}: dies")
        if write is not None:
            when = self._chance.choice(["never", "now", "late"])
            if when == "now":
                _forgiving(write)()
            elif when == "late":
                store.turns.later(self._chance.randint(1, _MOST_LATE_STEPS), _forgiving(write))
        raise SimulatedCrash

    def _failure(self, verb: str, key: str, when: str) -> StorageError:
        if self._store.told is not None:
            self._store.told(f"    fails: {when}")
        return StorageError(f"{verb} of {key} was made to fail: {when}", url=self.url)


def _entries(objects: dict[str, Stored], prefix: str) -> Entries:
    return [
        Entry(key, len(objects[key].data), objects[key].time_us)
        for key in sorted(key for key in objects if key.startswith(prefix))
    ]


def _covers(name: SegmentName, old: SegmentName) -> bool:
    same = (name.experiment_id, name.writer) == (old.experiment_id, old.writer)
    return same and name.first <= old.last and name.last >= old.first


def _forgiving(effect: Callable[[], object]) -> Callable[[], None]:
    """Return an effect that nobody waits for."""

    def arrive() -> None:
        try:
            effect()
        except FileNotFoundError:
            return

    return arrive
