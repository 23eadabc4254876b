"""Names of experiments: numbered claims, of which the highest rules.

A claim *is* the existence of an experiment under its name; the event in the log is its trace.
Claims are never deleted, and claim k + 1 may be made only after what claim k named was renamed
or purged: the caller sees to that. The normative text is `docs/spec/v1.md`, "Names".
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runlake import ids, schema
from runlake.errors import FormatError
from runlake.storage import layout, manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.storage.filesystem import Filesystem

FIRST_CLAIM: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """All that was said when an experiment got its name.

    Attributes:
        name: the experiment's name.
        experiment_id: what it names.
        number: 1 for the name's first owner; it stands in the key, not in the file.
        time_us: when it was made, microseconds since 1970, UTC.
        user: who made it.
        artifact_location: where its artifacts lie if not in the lake.
        tags: the experiment's first tags.
        nonce: tells this claim from any other for the same number.
    """

    name: str
    experiment_id: str
    time_us: int
    user: str
    nonce: str
    number: int = FIRST_CLAIM
    artifact_location: str | None = None
    tags: Mapping[str, str]


def read_claim(fs: Filesystem, name: str) -> Claim | None:
    """Return the claim that rules a name, None if the name was never claimed.

    Args:
        fs: the lake's storage.
        name: the experiment's name.

    Raises:
        StorageError: the store cannot be read.
        FormatError: the claim is damaged, or another name's.
        NewerFormatError: a newer runlake wrote it.
    """
    entries = fs.list(layout.claims(ids.name_hash(name)))
    numbers = [number for entry in entries if (number := layout.parse_claim(entry.key))]
    if not numbers:
        return None
    key = layout.claim(ids.name_hash(name), max(numbers))
    claim = decode(fs.get(key), number=max(numbers), key=key, url=fs.url)
    if claim.name != name:
        message = f"{fs.url}/{key} claims the name {claim.name!r}, expected {name!r}."
        raise FormatError(message, url=fs.url)
    return claim


def make_claim(fs: Filesystem, claim: Claim) -> bool:
    """Claim a name; of many that come at once, one wins.

    Args:
        fs: the lake's storage.
        claim: what to claim, under `claim.number`.

    Returns:
        True if the claim under this number is this one, False if it is somebody else's.

    Raises:
        StorageError: the store cannot be written.
    """
    return fs.put_absent(layout.claim(ids.name_hash(claim.name), claim.number), encode(claim))


def encode(claim: Claim) -> bytes:
    """Return a claim as the JSON text that `decode` reads."""
    fields = {
        "format": schema.FORMAT_VERSION,
        "name": claim.name,
        "experiment_id": claim.experiment_id,
        "time_us": claim.time_us,
        "user": claim.user,
        "artifact_location": claim.artifact_location,
        "tags": dict(claim.tags),
        "nonce": claim.nonce,
    }
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()


def decode(data: bytes, *, number: int, key: str, url: str) -> Claim:
    """Read a claim.

    Args:
        data: the file.
        number: the number in its key.
        key: its key, for messages.
        url: the lake, for messages.

    Returns:
        The claim, with its number.

    Raises:
        FormatError: it is damaged.
        NewerFormatError: a newer runlake wrote it.
    """
    try:
        fields: dict[str, Any] = json.loads(data)
        manifest.check_format(fields["format"], key=key, url=url)
        location = fields["artifact_location"]
        return Claim(
            name=str(fields["name"]),
            experiment_id=str(fields["experiment_id"]),
            number=number,
            time_us=int(fields["time_us"]),
            user=str(fields["user"]),
            artifact_location=None if location is None else str(location),
            tags={str(tag): str(text) for tag, text in fields["tags"].items()},
            nonce=str(fields["nonce"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        message = f"{url}/{key} is no readable claim of a name: {error!r}"
        raise FormatError(message, url=url) from error
