"""Where each thing lies below the root of a lake: pure functions between keys and parts.

Keys are relative to the root and use `/` everywhere. Numbers are padded so that names sort
as the numbers do. Nothing here does I/O. The normative text is `docs/spec/v1.md`, "Key layout".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LAKE_FILE: Final = "runlake.json"
LOG: Final = "log/"
MANIFESTS: Final = "manifests/"
TABLES: Final = "tables/"
ARTIFACTS: Final = "artifacts/"
EXPERIMENT_NAMES: Final = "names/experiments/"
MODEL_NAMES: Final = "names/models/"

_LAST_DIGITS: Final = 15
_COUNT_DIGITS: Final = 12
_NUMBER_DIGITS: Final = 12
_CLAIM_DIGITS: Final = 6
_VERSION_DIGITS: Final = 9
_SEGMENT = re.compile(
    r"log/experiment_id=(?P<experiment>[^/]+)/"
    r"(?P<writer>[0-9A-Z]{26})\.(?P<last>\d{15})-(?P<count>\d{12})(?P<merged>\.z)?\.parquet"
)
_MANIFEST = re.compile(r"manifests/(\d{12})\.json")
_CLAIM = re.compile(r"names/experiments/[a-z2-7]{32}/(\d{6})\.json")
_MODEL_CLAIM = re.compile(r"names/models/(?P<home>[a-z2-7]{32}/\d{6})\.json")
_VERSION_CLAIM = re.compile(
    r"names/models/(?P<home>[a-z2-7]{32}/\d{6})/versions/(?P<number>\d{9})\.json"
)
_TABLE_FILE = re.compile(
    r"tables/(?P<table>[a-z_]+)/experiment_id=(?P<experiment>[^/]+)/"
    r"(?P<number>\d{12})-(?P<nonce>[0-9a-f]{16})\.parquet"
)


@dataclass(frozen=True, slots=True, order=True)
class SegmentName:
    """What the name of a segment says: whose rows it holds, and which.

    Order is the order of the keys in a listing of one partition.

    Attributes:
        writer: the writer's id, 26 characters.
        last: sequence number of the last row.
        count: number of rows, at least 1; the first row is `last - count + 1`.
        merged: True if the writer joined sealed segments into this one when it closed (`.z`).
        experiment_id: the partition.
    """

    writer: str
    last: int
    count: int
    merged: bool
    experiment_id: str

    @property
    def first(self) -> int:
        """The sequence number of the first row."""
        return self.last - self.count + 1

    @property
    def key(self) -> str:
        """The key below the lake's root."""
        suffix = ".z.parquet" if self.merged else ".parquet"
        rows = f"{self.last:0{_LAST_DIGITS}d}-{self.count:0{_COUNT_DIGITS}d}"
        return f"{partition(self.experiment_id)}{self.writer}.{rows}{suffix}"

    def covers(self, other: SegmentName) -> bool:
        """Tell whether this segment makes `other` superfluous; it then sorts after it.

        No two names cover each other, because vacuum would then delete both.
        """
        if self.writer != other.writer or self.experiment_id != other.experiment_id:
            return False
        if self.last < other.last or self.first > other.first:
            return False
        same_rows = self.last == other.last and self.count == other.count
        return not same_rows or (self.merged and not other.merged)


@dataclass(frozen=True, slots=True)
class TableName:
    """What the name of a compacted file says.

    Attributes:
        table: `metrics`, `events`, `facts`, `summaries` or `writers`.
        experiment_id: the partition.
        number: of the manifest that it was written for.
        nonce: tells this attempt's file from another's.
    """

    table: str
    experiment_id: str
    number: int
    nonce: str

    @property
    def key(self) -> str:
        """The key below the lake's root."""
        name = f"{self.number:0{_NUMBER_DIGITS}d}-{self.nonce}.parquet"
        return f"{table_partition(self.table, self.experiment_id)}{name}"


def partition(experiment_id: str) -> str:
    """Return the prefix of an experiment's segments, with a slash at its end."""
    return f"{LOG}experiment_id={experiment_id}/"


def parse_segment(key: str) -> SegmentName | None:
    """Return the parts of a segment's key, None if the key is no segment's."""
    match = _SEGMENT.fullmatch(key)
    if match is None:
        return None
    name = SegmentName(
        writer=match["writer"],
        last=int(match["last"]),
        count=int(match["count"]),
        merged=match["merged"] is not None,
        experiment_id=match["experiment"],
    )
    return name if 1 <= name.count <= name.last + 1 else None


def manifest(number: int) -> str:
    """Return the key of manifest `number`."""
    return f"{MANIFESTS}{number:0{_NUMBER_DIGITS}d}.json"


def parse_manifest(key: str) -> int | None:
    """Return the number of a manifest's key, None if the key is no manifest's."""
    match = _MANIFEST.fullmatch(key)
    return None if match is None else int(match[1])


def table_partition(table: str, experiment_id: str) -> str:
    """Return the prefix of an experiment's files of one table, with a slash at its end."""
    return f"{TABLES}{table}/experiment_id={experiment_id}/"


def parse_table_file(key: str) -> TableName | None:
    """Return the parts of a compacted file's key, None if the key is none's."""
    match = _TABLE_FILE.fullmatch(key)
    if match is None:
        return None
    return TableName(match["table"], match["experiment"], int(match["number"]), match["nonce"])


def claims(name_hash: str) -> str:
    """Return the prefix of all claims of an experiment's name."""
    return f"{EXPERIMENT_NAMES}{name_hash}/"


def claim(name_hash: str, number: int) -> str:
    """Return the key of claim `number` of an experiment's name."""
    return f"{claims(name_hash)}{number:0{_CLAIM_DIGITS}d}.json"


def parse_claim(key: str) -> int | None:
    """Return the number of a claim's key, None if the key is no claim's."""
    match = _CLAIM.fullmatch(key)
    return None if match is None else int(match[1])


def model_home(name_hash: str, number: int) -> str:
    """Return what stands for claim `number` of a model's name in keys."""
    return f"{name_hash}/{number:0{_CLAIM_DIGITS}d}"


def model_claim(home: str) -> str:
    """Return the key of a claim of a registered model's name."""
    return f"{MODEL_NAMES}{home}.json"


def parse_model_claim(key: str) -> str | None:
    """Return the home in the key of a claim of a model's name, None if it is none's."""
    match = _MODEL_CLAIM.fullmatch(key)
    return None if match is None else match["home"]


def version_claim(home: str, number: int) -> str:
    """Return the key of the claim of a version of the model that claim `home` made."""
    return f"{MODEL_NAMES}{home}/versions/{number:0{_VERSION_DIGITS}d}.json"


def parse_version_claim(key: str) -> tuple[str, int] | None:
    """Return home and number in the key of a version's claim, None if it is none's."""
    match = _VERSION_CLAIM.fullmatch(key)
    return None if match is None else (match["home"], int(match["number"]))


def probe(nonce: str) -> str:
    """Return the key with which the store is asked whether it can create conditionally."""
    return f"names/probes/{nonce}.json"


def artifacts(experiment_id: str, run_id: str) -> str:
    """Return the prefix of a run's artifacts, with a slash at its end."""
    return f"{ARTIFACTS}{experiment_id}/{run_id}/"


def folders_above(key: str) -> Iterator[str]:
    """Yield the folders that a key lies in, without a slash at their end, the widest first."""
    place = key.find("/")
    while place >= 0:
        yield key[:place]
        place = key.find("/", place + 1)


def files_above(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield those of some keys that lie below another of them, each with that.

    A bucket holds both. No disk does: what is a file there is no folder.
    """
    files = set(keys)
    for key in sorted(files):
        for above in folders_above(key):
            if above in files:
                yield key, above
                break
