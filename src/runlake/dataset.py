"""Data sets that runs read: what tells one from another, and the row that says who read it.

A data set is known by its name and its digest, and by nothing that it holds. Of the same data
set in two contexts, as for training and for validation, a run says both.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from runlake import schema
from runlake.errors import InvalidInputError
from runlake.writing import values
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from runlake.writing.events import Row

# So that no two data sets have one key, whatever their names hold.
_ESCAPES: Final = str.maketrans({"%": "%25", "@": "%40"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set by name and digest, for `Run.log_input`.

    Attributes:
        name: what people call it.
        digest: what changes when the data do: a hash, a version, a commit.
        source: where it comes from: a URL, a path, a query.
        source_type: what kind of source that is, as `s3`.
    """

    name: str
    digest: str
    source: str | None = None
    source_type: str | None = None


def input_row(run_id: str, dataset: object, context: object) -> Row:
    """Return the row that says that a run read a data set.

    Args:
        run_id: the run.
        dataset: a `Dataset`, one of MLflow's, or anything else with `name` and `digest`;
            where there are a `source` and a `source_type`, they are kept.
        context: what the run read it for, as `training`; None where it does not matter.

    Returns:
        A row of kind `input`.

    Raises:
        InvalidInputError: it is no such thing, or a part of it is too long.
    """
    if not (hasattr(dataset, "name") and hasattr(dataset, "digest")):
        message = (
            f"log_input takes a data set with a name and a digest, got {type(dataset).__name__}. "
            "Write log_input(runlake.Dataset(name='train', digest='<hash or version>'))."
        )
        raise InvalidInputError(message)
    name, digest = _checked("name", dataset.name), _checked("digest", dataset.digest)
    parts = [name, digest]
    if context is not None:
        parts.append(_checked("context", context))
    key = "@".join(part.translate(_ESCAPES) for part in parts)
    if len(key) > schema.KEY_LIMIT_CHARS:
        message = (
            f"name, digest and context of data set {name[:40]!r}… have {len(key)} characters "
            f"together, at most {schema.KEY_LIMIT_CHARS} are kept. Shorten the name."
        )
        raise InvalidInputError(message)
    source, source_type = _source(dataset)
    said = {
        "name": name,
        "digest": digest,
        "source_type": source_type,
        "source": source,
        "context": context,
    }
    return run_id, schema.INPUT, key, None, values.text("data set", name, to_json(said))


def _checked(part: str, given: object) -> str:
    """Return a name, digest or context after checking it."""
    if isinstance(given, str) and given and given.isprintable():
        return given
    message = (
        f"the {part} of a data set is text of 1 to {schema.KEY_LIMIT_CHARS} printable "
        f"characters, got {type(given).__name__} {str(given)[:80]!r}."
    )
    raise InvalidInputError(message)


def _source(dataset: object) -> tuple[str | None, str | None]:
    """Return where a data set comes from, and what kind of source that is."""
    source, kind = getattr(dataset, "source", None), getattr(dataset, "source_type", None)
    describe = getattr(source, "to_json", None)
    if callable(describe):
        # MLflow's: the object says what it is, and its kind by a method.
        ask = getattr(source, "_get_source_type", None)
        kind = ask() if kind is None and callable(ask) else kind
        source = describe()
    elif isinstance(source, os.PathLike):
        source = os.fspath(source)
    for part, given in (("source", source), ("source_type", kind)):
        if not (given is None or isinstance(given, str)):
            message = (
                f"the {part} of a data set is text or None, got {type(given).__name__} "
                f"{str(given)[:80]!r}."
            )
            raise InvalidInputError(message)
    return source, kind
