"""Experiments by name, from many hosts at once, also without a connection.

The highest claim of a name rules. These calls wait for the store; where it is away,
`resolve` goes on with the id that is derived from the name, on which all hosts agree.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from runlake import arguments, clock, ids, schema
from runlake._lazy import lazy
from runlake.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    RunlakeWarning,
    StateError,
    StorageError,
)
from runlake.query.entities import Experiment
from runlake.run_plan import user
from runlake.storage import arrays, manifests
from runlake.storage.names import FIRST_CLAIM, Claim
from runlake.writing import values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pyarrow.compute as pc

    from runlake.storage.engine import Storage
    from runlake.storage.tables import SnapshotTables
    from runlake.writing.drain import Drain
    from runlake.writing.events import Row
else:
    pc = lazy("pyarrow.compute")

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
# A claim older than this whose event nobody has written: its maker died in between.
_TRACE_AFTER_US: Final = 60_000_000
_CLAIM_TRIES: Final = 10
_STAGES: Final = frozenset({schema.EXPERIMENT_DELETE, schema.EXPERIMENT_RESTORE})


class Said(NamedTuple):
    """What stands about an experiment in the reserved partition.

    Attributes:
        name: None where only other things were said.
        is_created: its creation is told, and so all that its own partition could add.
        is_deleted: the latest of deletions and restorations.
    """

    name: str | None
    is_created: bool
    is_deleted: bool


def read_said(tables: SnapshotTables, experiment_id: str) -> Said | None:
    """Return what stands about an experiment, None where nothing does.

    Args:
        tables: of a snapshot; that of the reserved partition alone will do.
        experiment_id: the experiment.
    """
    events = tables.lake_events
    rows = events.filter(pc.equal(events["run_id"], arrays.text(experiment_id))).to_pylist()
    if not rows:
        return None
    rows.sort(key=lambda row: (row["clock"], row["writer"], row["seq"]))
    created = [row["key"] for row in rows if row["kind"] == schema.EXPERIMENT_CREATE]
    renamed = [row["key"] for row in rows if row["kind"] == schema.EXPERIMENT_RENAME]
    stages = [row["kind"] for row in rows if row["kind"] in _STAGES]
    return Said(
        name=next(iter([*renamed[-1:], *created[:1]]), None),
        is_created=bool(created),
        is_deleted=stages[-1:] == [schema.EXPERIMENT_DELETE],
    )


@dataclass(slots=True)
class Experiments:
    """Making, finding, renaming, tagging, deleting and restoring experiments.

    Attributes:
        storage: of the lake; its requests are bounded by `name_timeout_s`.
        drain: through which events go.
        find: reads one experiment by id from a fresh snapshot, None if unknown.
        flush_timeout_s: seconds that a call waits for its event to be in the store.
    """

    storage: Storage
    drain: Drain
    find: Callable[[str], Experiment | None]
    flush_timeout_s: float
    _known: dict[str, str] = field(default_factory=dict)
    _resolved: dict[str, str] = field(default_factory=dict)

    def resolve_once(self, name: str) -> str:
        """As `Experiments.resolve`, but a name that this object has resolved is not looked up.

        A sweep of thousands of runs so costs one look-up, not thousands.
        """
        return self._resolved.get(name) or self.resolve(name)

    def resolve(self, name: str) -> str:
        """Return the id of an experiment; make it where there is none.

        Args:
            name: 1 to 500 printable characters.

        Raises:
            InvalidInputError: the name is none.
            StateError: the experiment is deleted.
            FormatError: the lake is newer than this runlake, or damaged.
        """
        values.name("experiment", name, most=schema.NAME_LIMIT_CHARS)
        try:
            experiment_id = self._resolve(name)
        except StorageError as error:
            experiment_id = ids.derived_experiment_id(name)
            warnings.warn(
                f"experiment {name!r} could not be looked up ({error}); runs go on under the id "
                f"{experiment_id} that follows from its name.",
                RunlakeWarning,
                stacklevel=3,
            )
        self._known[experiment_id] = name
        self._resolved[name] = experiment_id
        return experiment_id

    def name_of(self, experiment_id: str) -> str:
        """Return the name of an experiment whose id the caller gave.

        Args:
            experiment_id: letters, digits, `.`, `_` and `-`; at most 100.

        Raises:
            InvalidInputError: it is no id.
        """
        if not _ID.fullmatch(str(experiment_id)):
            message = (
                f"an experiment id is up to 100 letters, digits, '.', '_' and '-', got "
                f"{experiment_id!r}."
            )
            raise InvalidInputError(message)
        if experiment_id == ids.DEFAULT_EXPERIMENT_ID:
            return ids.DEFAULT_EXPERIMENT_NAME
        if experiment_id not in self._known:
            try:
                found = self.find(experiment_id)
            except (StorageError, NotFoundError):
                found = None
            self._known[experiment_id] = found.name if found else experiment_id
        return self._known[experiment_id]

    def forget(self) -> None:
        """Look names up again: the experiments that they led to may be gone."""
        self._resolved.clear()

    def locate(self, name_or_id: str) -> str:
        """Return the id of an experiment that goes by a name, or has an id.

        Args:
            name_or_id: as people write it; a name goes before an id. A name that an experiment
                had before it was renamed is none.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store cannot be read.
        """
        name_or_id = arguments.text("the experiment", name_or_id)
        ruling = self.storage.read_claim(name_or_id)
        if ruling is not None and not self._was_freed(ruling):
            return ruling.experiment_id
        derived = ids.derived_experiment_id(name_or_id)
        found = self.find(derived)
        if found is not None and found.name == name_or_id:
            return derived
        if _ID.fullmatch(name_or_id) and self.find(name_or_id) is not None:
            return name_or_id
        message = (
            f"no experiment {name_or_id!r} in lake {self.storage.url}. "
            '`runlake sql "FROM experiments"` lists all.'
        )
        raise NotFoundError(message, url=self.storage.url)

    def find_by_name(self, name: str) -> Experiment | None:
        """Return the experiment that goes by a name, deleted or not, from what is there now.

        Its own partition is read only where no claim tells of it, or its claim is new.

        Args:
            name: as people write it.

        Raises:
            StorageError: the store cannot be read.
        """
        try:
            ruling = self.storage.read_claim(name)
            if ruling is not None and not self._was_freed(ruling):
                return self.find(ruling.experiment_id) or _claimed(ruling, self.storage.url)
        except NotFoundError:  # there is no lake yet
            return None
        found = self.find(ids.derived_experiment_id(name))
        return found if found is not None and found.name == name else None

    def unseen(self, experiment_id: str) -> Experiment:
        """Return what is known of an experiment that no snapshot shows yet."""
        return Experiment(
            experiment_id=experiment_id,
            name=self._known.get(experiment_id, experiment_id),
            lifecycle_stage=schema.ACTIVE,
            artifact_location=f"{self.storage.url}/artifacts/{experiment_id}",
            creation_time=None,
            last_update_time=None,
            tags={},
        )

    def create(
        self,
        name: str,
        artifact_location: str | Callable[[str], str | None] | None,
        *,
        tags: Mapping[str, object] | None,
        time_us: int | None = None,
    ) -> str:
        """Make an experiment and return its id; it is in the store when this returns.

        Args:
            name: 1 to 500 printable characters.
            artifact_location: where artifacts lie if not in the lake, or what tells that by its
                id.
            tags: its first tags.
            time_us: when it was made, microseconds since 1970, if not now, as of an experiment
                that comes from another tracker.

        Returns:
            Its id.

        Raises:
            InvalidInputError: the name or a tag is wrong.
            AlreadyExistsError: the name is taken.
            ConflictError: many processes claim the name at once.
            StorageError: the store refused.
        """
        values.name("experiment", name, most=schema.NAME_LIMIT_CHARS)
        texts = {
            values.name("tag", key): values.text("tag", key, value)
            for key, value in arguments.mapping("tags", tags).items()
        }
        self.storage.ensure_lake()
        for _ in range(_CLAIM_TRIES):
            ruling = self.storage.read_claim(name)
            if ruling is not None and not self._was_freed(ruling):
                message = f"experiment {name!r} exists already, with id {ruling.experiment_id!r}."
                raise AlreadyExistsError(message, url=self.storage.url)
            claim = _claim(name, ruling, artifact_location, texts)
            if time_us is not None:
                claim = replace(claim, time_us=time_us)
            if self.storage.make_claim(claim):
                self._trace(claim)
                return claim.experiment_id
        raise ConflictError(f"the name {name!r} is claimed by many at once. Try again.")

    def rename(
        self, experiment: str | Experiment, name: str, *, time_us: int | None = None
    ) -> None:
        """Give an experiment another name; the old one becomes free.

        Args:
            experiment: its id, or what `find` has just returned: then it is not looked up.
            name: the new name.
            time_us: when, microseconds since 1970, if not now.

        Raises:
            NotFoundError: there is no such experiment.
            AlreadyExistsError: the name is taken.
            StorageError: the store refused.
        """
        values.name("experiment", name, most=schema.NAME_LIMIT_CHARS)
        known = self._require(experiment)
        if known.name == name:
            return
        experiment_id = known.experiment_id
        ruling = self.storage.read_claim(name)
        if ruling is None or ruling.experiment_id != experiment_id:
            if ruling is not None and not self._was_freed(ruling):
                message = f"experiment {name!r} exists already, with id {ruling.experiment_id!r}."
                raise AlreadyExistsError(message, url=self.storage.url)
            claim = _claim(name, ruling, None, {}, experiment_id=experiment_id)
            if not self.storage.make_claim(claim):
                message = f"experiment {name!r} was made by somebody else just now."
                raise AlreadyExistsError(message, url=self.storage.url)
        self._say([(experiment_id, schema.EXPERIMENT_RENAME, name, time_us, None)])
        self._known[experiment_id] = name

    def set_tags(self, experiment: str | Experiment, tags: Mapping[str, object]) -> None:
        """Set tags of an experiment.

        Args:
            experiment: its id, or what `find` has just returned: then it is not looked up.
            tags: values by key.

        Raises:
            NotFoundError: there is no such experiment.
            InvalidInputError: a tag is wrong; none is set.
            StorageError: the store refused.
        """
        texts = {
            values.name("tag", key): values.text("tag", key, value)
            for key, value in arguments.mapping("tags", tags).items()
        }
        home = self._require(experiment).experiment_id
        self._say([(home, schema.EXPERIMENT_TAG, key, None, text) for key, text in texts.items()])

    def untag(self, experiment: str | Experiment, key: str) -> None:
        """Take a tag of an experiment away; one that it has not stays away.

        Args:
            experiment: its id, or what `find` has just returned: then it is not looked up.
            key: of the tag.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        home = self._require(experiment).experiment_id
        self._say([(home, schema.EXPERIMENT_TAG, values.name("tag", key), None, None)])

    def delete(self, experiment: str | Experiment, *, time_us: int | None = None) -> None:
        """Hide an experiment and keep everything in it; see `restore`.

        Args:
            experiment: its id, or what `find` has just returned: then it is not looked up.
            time_us: when, microseconds since 1970, if not now.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        home = self._require(experiment).experiment_id
        self._say([(home, schema.EXPERIMENT_DELETE, "", time_us, None)])

    def restore(self, experiment: str | Experiment, *, time_us: int | None = None) -> None:
        """Show a deleted experiment again; runs deleted one by one stay deleted.

        Args:
            experiment: its id, or what `find` has just returned: then it is not looked up.
            time_us: when, microseconds since 1970, if not now.

        Raises:
            NotFoundError: there is no such experiment.
            StorageError: the store refused.
        """
        home = self._require(experiment).experiment_id
        self._say([(home, schema.EXPERIMENT_RESTORE, "", time_us, None)])

    def _resolve(self, name: str) -> str:
        self.storage.ensure_lake()
        for _ in range(_CLAIM_TRIES):
            ruling = self.storage.read_claim(name)
            said = None if ruling is None else self._said_of(ruling.experiment_id)
            if ruling is None or self._is_freed_of(ruling, said):
                claim = _claim(name, ruling, None, {})
                if self.storage.make_claim(claim):
                    self._trace(claim)
                    return claim.experiment_id
                continue
            if said is not None and said.is_deleted:
                message = (
                    f"experiment {name!r} is deleted. Restore it: "
                    f"runlake.restore_experiment({ruling.experiment_id!r}), or use another name."
                )
                raise StateError(message, url=self.storage.url)
            if said is None and clock.now_us() - ruling.time_us > _TRACE_AFTER_US:
                self._trace(ruling)
            return ruling.experiment_id
        raise ConflictError(f"the name {name!r} is claimed by many at once. Try again.")

    def _was_freed(self, ruling: Claim) -> bool:
        """Tell whether the experiment that a claim names has given the name up."""
        return self._is_freed_of(ruling, self._said_of(ruling.experiment_id))

    def _said_of(self, experiment_id: str) -> Said | None:
        """Return what stands about an experiment; its own partition is not read.

        Of a busy experiment that would be hundreds of requests for each run that starts.
        """
        _, tables = self.storage.read([schema.RESERVED_PARTITION])
        return read_said(tables, experiment_id)

    def _is_freed_of(self, ruling: Claim, said: Said | None) -> bool:
        """Tell whether an experiment was renamed, or purged, since a claim was made for it."""
        if said is not None and said.name is not None:
            return said.name != ruling.name
        # Nothing is said of it: either the trace of its claim is still to come, or it is purged.
        newest = manifests.newest(self.storage.fs, lake=self.storage.require_lake())
        return ruling.experiment_id in newest.purged

    def _require(self, experiment: str | Experiment) -> Experiment:
        if isinstance(experiment, Experiment):
            return experiment
        arguments.text("experiment_id", experiment)
        found = self.find(experiment) if _ID.fullmatch(experiment) else None
        if found is None:
            ruling = self.storage.read_claim(str(experiment))
            hint = (
                "`lake.search_experiments()` lists all."
                if ruling is None
                else f"It is the name of the one with the id {ruling.experiment_id!r}."
            )
            message = (
                f"no experiment has the id {experiment!r} in lake {self.storage.url!r}. {hint}"
            )
            raise NotFoundError(message, url=self.storage.url)
        return found

    def _trace(self, claim: Claim) -> None:
        """Write the event of a claim: the claim is the existence, this is what listings show."""
        about = {
            "time_us": claim.time_us,
            "user": claim.user,
            "artifact_location": claim.artifact_location,
            "tags": dict(claim.tags),
        }
        text = json.dumps(about, ensure_ascii=False, separators=(",", ":"))
        rows: list[Row] = [(claim.experiment_id, schema.EXPERIMENT_CREATE, claim.name, None, text)]
        rows += [
            (claim.experiment_id, schema.EXPERIMENT_TAG, key, None, value)
            for key, value in claim.tags.items()
        ]
        self._say(rows)

    def _say(self, rows: Sequence[Row]) -> None:
        """Append events to the reserved partition; they are in the store when this returns."""
        self._resolved.clear()
        partition = schema.RESERVED_PARTITION
        while not self.drain.writer(partition, partition).journal.events(rows):
            pass
        self.drain.flush(self.flush_timeout_s)


def _claimed(ruling: Claim, url: str) -> Experiment:
    """Return an experiment of which nothing is told yet but the claim of its name."""
    location = ruling.artifact_location or f"{url}/artifacts/{ruling.experiment_id}"
    return Experiment(
        experiment_id=ruling.experiment_id,
        name=ruling.name,
        lifecycle_stage=schema.ACTIVE,
        artifact_location=location,
        creation_time=ruling.time_us // 1000,
        last_update_time=ruling.time_us // 1000,
        tags=dict(ruling.tags),
    )


def _claim(
    name: str,
    before: Claim | None,
    artifact_location: str | Callable[[str], str | None] | None,
    tags: Mapping[str, str],
    *,
    experiment_id: str | None = None,
) -> Claim:
    """Return the claim that follows `before`: the first owner's id follows from the name."""
    derived = ids.derived_experiment_id(name) if before is None else ids.random_experiment_id()
    experiment_id = experiment_id or derived
    if callable(artifact_location):
        artifact_location = artifact_location(experiment_id)
    return Claim(
        name=name,
        experiment_id=experiment_id,
        time_us=clock.now_us(),
        user=user(),
        nonce=ids.new_nonce(),
        number=FIRST_CLAIM if before is None else before.number + 1,
        artifact_location=artifact_location,
        tags=tags,
    )
