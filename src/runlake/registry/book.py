"""The registry as the store holds it now: what stands, who owns a name, and what to write.

The claim *is* the existence of a model under a name, or of a version under a number; the event
in the reserved partition is its trace, which every reader folds. A process that dies between the
two leaves a claim without a trace. Whoever writes next and meets it writes the trace, before it
decides anything by it; so nothing is lost, and no number is given out twice or left out.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any, Final, final

from runlake import schema
from runlake._lazy import lazy
from runlake.errors import ConflictError, NotFoundError
from runlake.query.registered import Registered
from runlake.storage import model_claims
from runlake.storage.nullfs import NullFilesystem
from runlake.storage.tables import empty_tables, lake_events_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    import pyarrow as pa

    from runlake.query import engine
    from runlake.query.engine import Query
    from runlake.query.registered import Model
    from runlake.storage.engine import Storage
    from runlake.storage.model_claims import ModelClaim, VersionClaim
    from runlake.writing.drain import Drain
    from runlake.writing.events import Row

    _Answer = TypeVar("_Answer")
else:
    engine = lazy("runlake.query.engine")
    pa = lazy("pyarrow")

# So often in a row a name that many want at once may change hands under a call.
_TRIES: Final = 20


@final
class Book:
    """What stands in the registry, and the way to add to it. Threads may share it."""

    def __init__(self, storage: Storage, drain: Drain, flush_timeout_s: float) -> None:
        """Read nothing yet.

        Args:
            storage: of the lake.
            drain: through which events go.
            flush_timeout_s: seconds that a call waits for its events to be in the store.
        """
        self._storage = storage
        self._drain = drain
        self._flush_timeout_s = flush_timeout_s
        self._last: tuple[pa.Table, Registered] | None = None
        self._here = threading.local()
        # Where nothing is written, a process still finds what it has said itself.
        self._is_disabled = isinstance(storage.fs, NullFilesystem)
        self._kept: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """The lake."""
        return self._storage.url

    def ask(self, answer: Callable[[Query], _Answer]) -> _Answer:
        """Answer a question about the reserved partition as the store holds it now.

        Args:
            answer: to a query over that partition alone.

        Returns:
            The answer.

        Raises:
            StorageError: the store cannot be read.
            FormatError: something is damaged, or newer than this runlake.
        """
        try:
            _, tables = self._storage.read([schema.RESERVED_PARTITION])
        except NotFoundError:
            tables = empty_tables(root_url=self.url, now_us=0, stale_s=0.0)
        query = engine.Query(tables)
        try:
            return answer(query)
        finally:
            query.close()

    def read(self) -> Registered:
        """Return what stands now.

        Raises:
            StorageError: the store cannot be read.
            FormatError: something is damaged, or newer than this runlake.
        """
        if self._is_disabled:
            return Registered(pa.Table.from_pylist(self._kept, lake_events_schema()))
        try:
            _, tables = self._storage.read([schema.RESERVED_PARTITION])
        except NotFoundError:
            return Registered(lake_events_schema().empty_table())
        last = self._last
        if last is None or last[0] is not tables.lake_events:
            self._last = last = tables.lake_events, Registered(tables.lake_events)
        self._here.known = last[1]
        return last[1]

    def last(self) -> Registered:
        """Return what stood when this thread last read it; reads it if it never did.

        Raises:
            StorageError: the store cannot be read.
            FormatError: something is damaged, or newer than this runlake.
        """
        known: Registered | None = getattr(self._here, "known", None)
        return self.read() if known is None or self._is_disabled else known

    def find(self, name: str) -> tuple[Registered, Model]:
        """Return what stands now, and one model; a claim without a trace gets one.

        Args:
            name: of the model.

        Raises:
            NotFoundError: there is no such model; names the nearest.
            StorageError: the store cannot be read or written.
        """
        known = self.read()
        model = known.by_name.get(name)
        if model is None:
            known, _ = self.owner(name)
            model = known.by_name.get(name)
        if model is None:
            raise missing("registered model", name, url=self.url, known=known)
        return known, model

    def owner(self, name: str) -> tuple[Registered, tuple[int, Model | None]]:
        """Return what stands now; the ruling claim of a name; and who goes by the name.

        Args:
            name: any name; what its claim says is traced where it was not.

        Returns:
            What stands; the number of the claim, 0 where the name was never claimed; and the
            model, None if the name is free.

        Raises:
            ConflictError: it is claimed by many at once.
            StorageError: the store cannot be read or written.
        """
        for _ in range(_TRIES):
            known = self.read()
            number, _ = known.claims.get(name, (0, ""))
            claim = model_claims.read_model(self._storage.fs, name, number + 1)
            if claim is None:
                found = known.by_name.get(name)
                return known, (number, found)
            self.say([trace_model(claim)], known)
        raise ConflictError(f"the name {name!r} is claimed by many at once. Try again.")

    def claim_name(self, claim: ModelClaim) -> bool:
        """Claim a name; its trace is still to be said.

        Args:
            claim: follows what `owner` told.

        Returns:
            False if somebody else was first; nothing was written then.

        Raises:
            StorageError: the store refused.
        """
        self._storage.ensure_lake()
        return model_claims.make_model(self._storage.fs, claim)

    def claim_version(self, model: Model, claim: VersionClaim) -> list[Row]:
        """Claim the next number of a model.

        Args:
            model: as it stands.
            claim: what to claim; its number is found here.

        Returns:
            The rows to write: the traces of others that have none yet, and that of this claim,
            the last.

        Raises:
            StorageError: the store refused.
        """
        fs, home = self._storage.fs, model.home
        top = max(model.versions, default=0)
        rows: list[Row] = []
        if len(model.versions) < top:
            for number in range(1, top):
                if number not in model.versions:
                    other = model_claims.read_version(fs, home, number)
                    rows += [] if other is None else [trace_version(other)]
        while True:
            top += 1
            claim = model_claims.numbered(claim, top)
            if model_claims.make_version(fs, home, claim):
                return [*rows, trace_version(claim)]
            other = model_claims.read_version(fs, home, top)
            rows += [] if other is None else [trace_version(other)]

    def trace(self, model: Model, number: int) -> bool:
        """Trace the claim of a version that is not known.

        Args:
            model: as it stands.
            number: of the version.

        Returns:
            False if there is no such claim.

        Raises:
            StorageError: the store cannot be read or written.
        """
        claim = model_claims.read_version(self._storage.fs, model.home, number)
        if claim is not None:
            self.say([trace_version(claim)], self.read())
        return claim is not None

    def say(self, rows: Sequence[Row], known: Registered) -> None:
        """Append events; they are in the store when this returns.

        Args:
            rows: run_id (the model), kind, key, num, str of each.
            known: what was decided upon; what is said comes after all of it.

        Raises:
            StorageError: the store refused; the events stay in the journal and go out later.
        """
        if self._is_disabled:
            names = ("run_id", "kind", "key", "num", "str")
            for row in rows:
                about = {"clock": len(self._kept), "writer": "", "seq": len(self._kept)}
                self._kept.append(dict(zip(names, row, strict=True)) | about)
        partition = schema.RESERVED_PARTITION
        while not self._drain.writer(partition, partition).journal.events(
            rows, after_us=known.last_us
        ):
            pass
        self._drain.flush(self._flush_timeout_s)


def trace_model(claim: ModelClaim) -> Row:
    """Return the event that tells of a claim of a name."""
    made = claim.renamed_from is None
    kind = schema.REGISTRY_MODEL_CREATE if made else schema.REGISTRY_MODEL_RENAME
    return claim.model_id, kind, claim.name, None, claim.text


def trace_version(claim: VersionClaim) -> Row:
    """Return the event that tells of a claim of a version."""
    kind = schema.REGISTRY_VERSION_CREATE
    return claim.model_id, kind, "", float(claim.number), claim.text


def text(about: dict[str, Any]) -> str:
    """Return the JSON of an event."""
    return json.dumps(about, ensure_ascii=False, separators=(",", ":"))


def missing(what: str, name: str, *, url: str, known: Registered) -> NotFoundError:
    """Return the error that a name is none, with its nearest neighbours.

    Args:
        what: should go by the name, in the singular.
        name: what was asked for.
        url: the lake.
        known: what there is.
    """
    return NotFoundError.of(what, name, url=url, known=[*known.by_name])
