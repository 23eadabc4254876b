"""Names of registered models, and numbers of their versions: claims, as experiments have them.

Claim k of a name is made only after what claim k - 1 named was renamed or deleted. Versions of
a model are claimed below the claim that made the model, its *home*, which a rename does not
move; a number is claimed once and for ever, so none is given out twice. Numbers of both are
contiguous, so the next is found without a listing. The normative text is `docs/spec/v1.md`,
"Names".
"""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Self

from runlake import ids, schema
from runlake.errors import FormatError
from runlake.storage import layout, manifest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runlake.storage.filesystem import Filesystem

FIRST_CLAIM: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Claim:
    """What every claim says.

    Attributes:
        model_id: the model.
        name: the model's name, as this claim gives it, or as it was then.
        number: in the key.
        time_us: when it was made, microseconds since 1970, UTC.
        user: who made it.
        host: where.
        reason: why; None where nobody said.
        description: the first description.
        tags: the first tags.
        nonce: tells this claim from any other for the same number.
    """

    model_id: str
    name: str
    number: int
    time_us: int
    user: str
    host: str
    reason: str | None
    description: str | None
    tags: Mapping[str, str]
    nonce: str

    @property
    def text(self) -> str:
        """All of it as JSON: what the event says that is its trace."""
        facts = asdict(self) | {"tags": dict(self.tags)}
        return json.dumps(facts, ensure_ascii=False, separators=(",", ":"))

    @property
    def data(self) -> bytes:
        """The file."""
        return f'{{"format":{schema.FORMAT_VERSION},{self.text[1:]}'.encode()

    @classmethod
    def read(cls, data: bytes, *, key: str, url: str) -> Self:
        """Read a claim.

        Args:
            data: the file.
            key: its key, for messages.
            url: the lake, for messages.

        Raises:
            FormatError: it is damaged.
            NewerFormatError: a newer runlake wrote it.
        """
        try:
            facts: dict[str, Any] = json.loads(data)
            manifest.check_format(facts["format"], key=key, url=url)
            known = {
                field.name: facts[field.name]
                for field in fields(cls)
                if field.default is MISSING or field.name in facts
            }
            known["tags"] = {str(tag): str(text) for tag, text in facts["tags"].items()}
            known |= {name: str(known[name]) for name in ("model_id", "name", "nonce")}
            known |= {name: int(known[name]) for name in ("number", "time_us")}
            return cls(**known)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{url}/{key} is no readable claim of a model: {error!r}"
            raise FormatError(message, url=url) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelClaim(_Claim):
    """A model under a name.

    Attributes:
        home: `<name hash>/<k>` of the claim that made the model: this one, or of a renamed
            model an earlier one of another name.
        renamed_from: the name before; None where this claim made the model.
        renamed_claim: the number of the claim that gave it that name. A rename whose model goes
            by another claim when it is traced has come too late, and is none.
    """

    home: str
    renamed_from: str | None
    renamed_claim: int | None

    @property
    def key(self) -> str:
        """The key below the lake's root."""
        return layout.model_claim(layout.model_home(ids.name_hash(self.name), self.number))


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionClaim(_Claim):
    """A version of a model under a number.

    Attributes:
        source: where its files come from, as it was given.
        location: where its files lie: `runs:/<run id>/<path>`, or a URL.
        run_id: the run that made it.
        run_link: a link to that run.
        logged_model_id: the logged model that it is; None where it is none, and in claims of
            before there were any.
    """

    source: str
    location: str
    run_id: str | None
    run_link: str | None
    logged_model_id: str | None = None


def numbered(claim: VersionClaim, number: int) -> VersionClaim:
    """Return a claim under another number, to be told from what it was."""
    return replace(claim, number=number, nonce=ids.new_nonce())


def read_model(fs: Filesystem, name: str, number: int) -> ModelClaim | None:
    """Return one claim of a model's name, None if there is none of this number.

    Args:
        fs: the lake's storage.
        name: the name.
        number: which, from 1.

    Raises:
        StorageError: the store cannot be read.
        FormatError: the claim is damaged, or another name's.
        NewerFormatError: a newer runlake wrote it.
    """
    key = layout.model_claim(layout.model_home(ids.name_hash(name), number))
    try:
        claim = ModelClaim.read(fs.get(key), key=key, url=fs.url)
    except FileNotFoundError:
        return None
    if claim.name != name:
        message = f"{fs.url}/{key} claims the name {claim.name!r}, expected {name!r}."
        raise FormatError(message, url=fs.url)
    return claim


def read_version(fs: Filesystem, home: str, number: int) -> VersionClaim | None:
    """Return the claim of one version, None if there is none of this number.

    Args:
        fs: the lake's storage.
        home: of its model.
        number: which, from 1.

    Raises:
        StorageError: the store cannot be read.
        FormatError: the claim is damaged.
        NewerFormatError: a newer runlake wrote it.
    """
    key = layout.version_claim(home, number)
    try:
        return VersionClaim.read(fs.get(key), key=key, url=fs.url)
    except FileNotFoundError:
        return None


def make_model(fs: Filesystem, claim: ModelClaim) -> bool:
    """Claim a name; of many that come at once, one wins.

    Args:
        fs: the lake's storage.
        claim: what to claim, under its number.

    Returns:
        True if the claim under this number is this one, False if it is somebody else's.

    Raises:
        StorageError: the store cannot be written.
    """
    return fs.put_absent(claim.key, claim.data)


def make_version(fs: Filesystem, home: str, claim: VersionClaim) -> bool:
    """Claim a version's number; of many that come at once, one wins.

    Args:
        fs: the lake's storage.
        home: of its model.
        claim: what to claim, under its number.

    Returns:
        True if the claim under this number is this one, False if it is somebody else's.

    Raises:
        StorageError: the store cannot be written.
    """
    return fs.put_absent(layout.version_claim(home, claim.number), claim.data)
