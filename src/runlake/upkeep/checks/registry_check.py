"""Whether the model registry is whole: claims and what the log tells of them, and sources."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, TypeVar, final

from runlake import schema
from runlake.errors import FormatError, NewerFormatError
from runlake.storage import layout
from runlake.storage.filesystem import Range
from runlake.storage.model_claims import ModelClaim, VersionClaim
from runlake.storage.snapshot import Snapshots
from runlake.upkeep.checks.findings import DAMAGED, MISSING, MODEL, NEWER, UNTRACED
from runlake.upkeep.registrations import registrations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from runlake.storage.filesystem import Entry, Filesystem
    from runlake.upkeep.checks.findings import Notebook
    from runlake.upkeep.checks.state_check import ArtifactBook
    from runlake.upkeep.registrations import Registrations

_Claim = TypeVar("_Claim", ModelClaim, VersionClaim)
_SUFFIX: Final = ".json"
_BATCH: Final = 256
_RUN_PART: Final = 2
_PATH_PART: Final = 3


@final
class RegistryCheck:
    """A check of the registry under way."""

    def __init__(self, fs: Filesystem, entries: Mapping[str, Entry], book: Notebook) -> None:
        """Check nothing yet.

        Args:
            fs: the lake's storage.
            entries: all objects by key, as they were listed.
            book: where findings go.
        """
        self._fs, self._entries, self._book = fs, entries, book

    def check(self, lake: str | None, purged: Collection[str], artifacts: ArtifactBook) -> None:
        """Check everything.

        Args:
            lake: the lake's id, None if it is not known: then what the log tells is left out.
            purged: runs that were purged.
            artifacts: what the log tells of artifacts.

        Raises:
            StorageError: the store cannot be read.
        """
        names = [key for key in self._entries if layout.parse_model_claim(key) is not None]
        numbers = [key for key in self._entries if layout.parse_version_claim(key) is not None]
        models, versions = self._claims(names, ModelClaim), self._claims(numbers, VersionClaim)
        self._check_places(models, versions)
        self._check_gaps([*names, *numbers])
        told = None if lake is None else self._told(lake)
        if told is not None:
            self._check_traces(told, models, versions)
            self._check_sources(told, purged, artifacts)

    def _claims(self, keys: list[str], of: type[_Claim]) -> dict[str, _Claim]:
        """Read claims, and say which cannot be read."""
        found = {}
        for start in range(0, len(keys), _BATCH):
            batch = keys[start : start + _BATCH]
            for key, data in zip(batch, self._datas(batch), strict=True):
                try:
                    if data is not None:
                        found[key] = of.read(data, key=key, url=self._fs.url)
                except NewerFormatError as error:
                    self._book.say(key, NEWER, str(error))
                except (FormatError, RecursionError) as error:
                    self._book.say(key, DAMAGED, str(error))
        return found

    def _datas(self, keys: list[str]) -> list[bytes | None]:
        ranges = [Range(key, 0, self._entries[key].size_bytes) for key in keys]
        try:
            return list(self._fs.get_ranges(ranges))
        except FileNotFoundError:
            return [self._data(key) for key in keys]

    def _data(self, key: str) -> bytes | None:
        try:
            return self._fs.get(key)
        except FileNotFoundError:
            self._book.say(key, MISSING, "a claim was deleted while the lake was checked")
            return None

    def _check_places(
        self, models: Mapping[str, ModelClaim], versions: Mapping[str, VersionClaim]
    ) -> None:
        """Check that claims lie where they must."""
        for key, model in models.items():
            if model.key != key:
                detail = f"it claims the name {model.name!r}, number {model.number}: another key"
                self._book.say(key, DAMAGED, detail)
        for key, version in versions.items():
            home, number = layout.parse_version_claim(key) or ("", 0)
            if version.number != number:
                detail = f"it claims the number {version.number}, and its key another"
                self._book.say(key, DAMAGED, detail)
            made = models.get(layout.model_claim(home))
            if made is not None and made.model_id != version.model_id:
                detail = f"it is of model {version.model_id}, and lies below {made.model_id}"
                self._book.say(key, DAMAGED, detail)

    def _check_gaps(self, keys: list[str]) -> None:
        """Check that numbers of claims have no gaps, and that what lies below a claim has it."""
        names: dict[str, list[str]] = defaultdict(list)
        for key in keys:
            folder, _, name = key.rpartition("/")
            names[folder].append(name.removesuffix(_SUFFIX))
            below = layout.parse_version_claim(key)
            if below is not None:
                detail = "the model was claimed here, and its versions are there"
                self._expect(layout.model_claim(below[0]), detail)
        for folder, found in names.items():
            numbers = set(map(int, found))
            for number in sorted(set(range(1, max(numbers))) - numbers):
                key = f"{folder}/{number:0{len(found[0])}d}{_SUFFIX}"
                self._expect(key, "later claims are there; claims are never deleted")

    def _expect(self, key: str, detail: str) -> None:
        """Say that a claim is missing; not one that came while the lake was checked."""
        if key not in self._entries and all(each.key != key for each in self._fs.list(key)):
            self._book.say(key, MISSING, detail)

    def _told(self, lake: str) -> Registrations | None:
        """Return what the log tells; None where it cannot be read, which is found elsewhere."""
        try:
            snapshot = Snapshots(self._fs, lake=lake).take([schema.RESERVED_PARTITION])
            return registrations(self._fs, snapshot)
        except (FormatError, FileNotFoundError):
            return None

    def _check_traces(
        self,
        told: Registrations,
        models: Mapping[str, ModelClaim],
        versions: Mapping[str, VersionClaim],
    ) -> None:
        """Hold claims against what the log tells of them."""
        for key, name in told.keys.items():
            self._expect(key, f"the log tells that the name {name!r} was claimed here")
        for model_id, number in told.versions:
            home = told.homes.get(model_id)
            if home is not None:
                detail = f"the log tells of version {number} of model {model_id}; without its "
                detail += "claim the number may be given out again"
                self._expect(layout.version_claim(home, number), detail)
        untraced = [key for key, claim in models.items() if claim.nonce not in told.nonces]
        untraced += [
            key
            for key, claim in versions.items()
            if (claim.model_id, claim.number) not in told.versions
        ]
        for key in untraced:
            detail = "no event tells of it: who made it is at work or has died; whoever changes "
            self._book.say(key, UNTRACED, f"{detail}the model next writes the event")

    def _check_sources(
        self, told: Registrations, purged: Collection[str], artifacts: ArtifactBook
    ) -> None:
        """Find versions that point at what is gone."""
        runs = self._files(artifacts)
        for each in told.standing():
            files = runs.get(each.run_id, {})
            below = [is_there for path, is_there in files.items() if each.has(path)]
            if each.run_id in purged:
                why = f"run {each.run_id} was purged"
            elif below and not any(below):
                why = f"{each.path or 'all files'} of run {each.run_id} were deleted"
            else:
                continue
            self._book.say(each.key, MODEL, f"{each.title} points at files that are gone: {why}")

    def _files(self, artifacts: ArtifactBook) -> dict[str, dict[str, bool]]:
        """Return the files of runs that the lake holds or ever held: whether each is there."""
        found: dict[str, dict[str, bool]] = defaultdict(dict)
        for key in (*artifacts.files, *_artifacts(self._entries)):
            parts = key.split("/", _PATH_PART)
            if len(parts) > _PATH_PART:
                found[parts[_RUN_PART]][parts[_PATH_PART]] = key in self._entries
        return found


def _artifacts(keys: Iterable[str]) -> Iterable[str]:
    return (key for key in keys if key.startswith(layout.ARTIFACTS))
