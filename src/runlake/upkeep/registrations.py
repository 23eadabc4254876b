"""What a lake says of its registered models: the rows of the reserved partition, not yet folded."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from runlake import ids, schema
from runlake.storage import layout
from runlake.upkeep.namings import lake_rows

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.storage.filesystem import Filesystem
    from runlake.storage.snapshot import Snapshot

_PREFIX: Final = "registry_"
_RUNS: Final = "runs:/"


class Made(NamedTuple):
    """A version of a model that was made from files of a run, and is not deleted.

    Attributes:
        key: of its claim.
        title: for people.
        run_id: the run.
        path: of the files below the run; empty means all.
    """

    key: str
    title: str
    run_id: str
    path: str

    def has(self, path: str) -> bool:
        """Tell whether a file of the run belongs to it."""
        return not self.path or path == self.path or path.startswith(f"{self.path}/")


@dataclass(slots=True)
class Registrations:
    """What the log tells of the registry.

    Attributes:
        nonces: of the claims of names that it tells of.
        keys: of these claims, with the names.
        homes: of each model, the claim that made it.
        versions: what it tells of the making of each version.
        gone: models and versions that were deleted.
    """

    nonces: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    versions: dict[tuple[str, int], dict[str, Any]] = field(default_factory=dict)
    gone: set[tuple[str, int | None]] = field(default_factory=set)

    def take(self, row: dict[str, Any]) -> None:
        """Take a row in, as `lake_rows` gives it."""
        kind, model_id = row["kind"], row["run_id"]
        number = None if row["num"] is None else int(row["num"])
        about = _read(row["str"])
        if kind in {schema.REGISTRY_MODEL_CREATE, schema.REGISTRY_MODEL_RENAME}:
            home = layout.model_home(ids.name_hash(row["key"]), int(about.get("number", 0)))
            self.nonces.add(str(about.get("nonce")))
            self.keys[layout.model_claim(home)] = row["key"]
            self.homes.setdefault(model_id, str(about.get("home", home)))
        elif kind == schema.REGISTRY_VERSION_CREATE and number is not None:
            self.versions.setdefault((model_id, number), about)
        elif kind == schema.REGISTRY_MODEL_DELETE:
            self.gone.add((model_id, None))
        elif kind == schema.REGISTRY_VERSION_DELETE:
            self.gone.add((model_id, number))

    def standing(self) -> Iterator[Made]:
        """Yield the versions that were made from files of runs and are not deleted."""
        for (model_id, number), about in sorted(self.versions.items()):
            location = str(about.get("location", ""))
            is_gone = not self.gone.isdisjoint({(model_id, None), (model_id, number)})
            if is_gone or not location.startswith(_RUNS):
                continue
            run_id, _, path = location.removeprefix(_RUNS).partition("/")
            key = layout.version_claim(self.homes.get(model_id, ""), number)
            title = f"version {number} of model {str(about.get('name', model_id))!r}"
            yield Made(key, title, run_id, path)


def registrations(fs: Filesystem, snapshot: Snapshot) -> Registrations:
    """Return what the log tells of the registry.

    Args:
        fs: the lake's storage.
        snapshot: of the lake, with the reserved partition.

    Raises:
        FileNotFoundError: an object of the snapshot is gone.
        StorageError: the store cannot be read.
        FormatError: an object is damaged.
    """
    told = Registrations()
    for row in lake_rows(fs, snapshot):
        if row["kind"].startswith(_PREFIX):
            told.take(row)
    return told


def _read(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
