"""A data set as people name it, made by hand or from what they hold in their hands."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from runlake import arguments, schema
from runlake._lazy import lazy
from runlake.errors import InvalidInputError
from runlake.writing import values
from runlake.writing.events import to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from runlake.dataset import files, given
    from runlake.redaction import texts
    from runlake.writing.events import Row
else:
    files = lazy("runlake.dataset.files")
    given = lazy("runlake.dataset.given")
    texts = lazy("runlake.redaction.texts")

# So that no two data sets have one key, whatever their names hold.
_ESCAPES: Final = str.maketrans({"%": "%25", "@": "%40"})
_PART_CHARS: Final = 500  # a name, digest or context, as in MLflow
# What a key that is too long begins with; a hash of all of it follows.
_KEPT_CHARS: Final = 160
DETAIL_LIMIT_BYTES: Final = 1 << 24  # a schema or profile, as in MLflow
# Of a schema that is worked out, a list of columns, at most so much is kept.
_WORKED_OUT_BYTES: Final = 1 << 18
_UNNAMED: Final = "dataset"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A data set by name and digest, for `Run.log_input`.

    `Dataset.of` makes one from a frame, arrays, files or a URL.

    Attributes:
        name: what people call it.
        digest: what changes when the data do: a hash, a version, a commit.
        source: where it comes from: a URL, a path, a query.
        source_type: what kind of source that is, as `s3`.
        schema: what columns or arrays it has: a text, or what JSON can hold.
        profile: what is worth knowing of its content, as counts: likewise.
    """

    name: str
    digest: str
    source: str | None = None
    source_type: str | None = None
    schema: object = None
    profile: object = None

    @classmethod
    def of(
        cls,
        data: object,
        name: str | None = None,
        *,
        source: str | os.PathLike[str] | None = None,
        targets: str | Sequence[str] | None = None,
        digest: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """Describe data: digest, schema and profile come from what they hold.

        The digest depends on values only: the same rows have the same one from pandas, Polars
        and Arrow, as int32 and int64, in every process. All values count up to 1 GiB (at more
        than 500 MB/s, texts of pandas slower); of more, 256 evenly spread ranges. Local files are
        read likewise; of what lies elsewhere the store's ETags, sizes and times count, and nothing
        is fetched. Empty folders and the order of paths do not matter.

        Args:
            data: a pandas or Polars frame or series, an Arrow table or anything else that Arrow
                can read (as a DuckDB relation), a NumPy array, a mapping of names to arrays; or
                a path, a URL that fsspec knows, or a list of these.
            name: 1 to 250 printable characters; None takes the file's, else `dataset`.
            source: where the data come from; of paths and URLs they are it themselves.
            targets: columns that a model is to predict; kept in the profile.
            digest: in place of the computed one, which then takes no time.
            storage_options: for fsspec, where `data` is a URL.

        Returns:
            The data set; secrets in its source are left out.

        Raises:
            InvalidInputError: it is none of these, there is no such file or column, or its
                types have no digest.
            MissingDependencyError: the filesystem's package is not installed.

        Example:
            >>> digits = Dataset.of({"x": [[0.0, 1.0]], "y": [1]}, "digits", targets="y")
            >>> digits.digest
            '947245b2c4456db446879141230269ab'
        """
        paths = _paths(data)
        if paths is not None:
            found = files.of_paths(paths, storage_options=storage_options, digest=digest)
            origin: str | None = ", ".join(map(_absolute, paths)) if source is None else None
            name = name or os.path.basename(paths[0].rstrip("/\\").partition("?")[0])  # noqa: PTH119 - a URL has names as well
        else:
            found = given.describe(data, digest=digest)
            origin = None
        source = os.fspath(source) if source is not None else origin
        wanted = [targets] if isinstance(targets, str) else list(targets or ())
        known = [each["name"] for each in found.schema or ()]
        missing = [column for column in wanted if column not in known and found.schema is not None]
        if missing:
            message = (
                f"the data set has no column {missing[0]!r} to be a target; it has "
                f"{', '.join(map(repr, known[:20]))}."
            )
            raise InvalidInputError(message)
        if wanted:
            found.profile["targets"] = wanted
        return cls(
            name=name or _UNNAMED,
            digest=found.digest,
            source=source,
            source_type=None if source is None else files.scheme(source.partition(", ")[0]),
            schema=found.schema,
            profile=found.profile,
        )


def input_rows(
    run_id: str, dataset: object, context: object, *, tags: Mapping[str, str] | None = None
) -> list[Row]:
    """Return the rows that say that a run read a data set.

    Args:
        run_id: the run.
        dataset: a `Dataset`, one of MLflow's, anything else with `name` and `digest` (where
            there are `source`, `source_type`, `schema` and `profile`, they are kept), or what
            `Dataset.of` takes.
        context: what the run read it for, as `training`; None where it does not matter.
        tags: what else is to be kept with it.

    Returns:
        A row of kind `input`, and one of kind `dataset` where there is a schema or profile.

    Raises:
        InvalidInputError: it is no such thing, or a part of it is too long.
    """
    if _paths(dataset) is not None or given.is_data(dataset):
        dataset = Dataset.of(dataset)
    if not (hasattr(dataset, "name") and hasattr(dataset, "digest")):
        message = (
            "log_input takes a frame, arrays, paths, or a data set with a name and a digest, got "
            f"{arguments.kind(dataset)}. Write log_input(runlake.Dataset(name='train', "
            "digest='<hash or version>'))."
        )
        raise InvalidInputError(message)
    name, digest = _checked("name", dataset.name), _checked("digest", dataset.digest)
    parts = [name, digest]
    if context is not None:
        parts.append(_checked("context", context))
    key = "@".join(part.translate(_ESCAPES) for part in parts)
    if len(key) > schema.KEY_LIMIT_CHARS:
        key = f"{key[:_KEPT_CHARS]}@{hashlib.sha256(key.encode()).hexdigest()}"
    source, source_type = _source(dataset)
    said: dict[str, object] = {
        "name": name,
        "digest": digest,
        "source_type": source_type,
        "source": source,
        "context": context,
    }
    if tags:
        said["tags"] = dict(tags)
    rows: list[Row] = [
        (run_id, schema.INPUT, key, None, values.text("data set", name, to_json(said)))
    ]
    details = {part: _detail(part, name, dataset) for part in ("schema", "profile")}
    if any(details.values()):
        rows.append((run_id, schema.DATASET, key, None, to_json(details)))
    return rows


def _paths(data: object) -> list[str] | None:
    """Return the paths or URLs that data are; None where they are none."""
    if isinstance(data, (str, os.PathLike)):
        data = [data]
    if not isinstance(data, (list, tuple)) or not data:
        return None
    if not all(isinstance(each, (str, os.PathLike)) for each in data):
        return None
    return [str(os.fspath(each)) for each in data]


def _absolute(path: str) -> str:
    return os.path.abspath(path) if files.is_local(path) else path  # noqa: PTH100 - links stay


def _checked(part: str, given: object) -> str:
    """Return a name, digest or context after checking it."""
    if isinstance(given, str) and given.isprintable() and 0 < len(given) <= _PART_CHARS:
        return given
    message = (
        f"the {part} of a data set is text of 1 to {_PART_CHARS} printable "
        f"characters, got {arguments.told(given)}."
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
                f"the {part} of a data set is text or None, got {arguments.kind(given)} "
                f"{str(given)[:80]!r}."
            )
            raise InvalidInputError(message)
    return None if source is None else texts.url_without_secrets(source), kind


def _detail(part: str, name: str, dataset: object) -> str | None:
    """Return the schema or profile of a data set as text."""
    found = getattr(dataset, part, None)
    describe = getattr(dataset, "to_dict", None)
    if callable(describe):
        # MLflow's: objects, which only the data set itself writes as text.
        said = describe()
        found = said.get(part) if isinstance(said, Mapping) else None
    if not isinstance(found, (str, Mapping, list)):
        return None
    try:
        text = found if isinstance(found, str) else _json(found)
    except (TypeError, ValueError) as error:
        message = f"the {part} of data set {name!r} is nothing that JSON can hold: {error}."
        raise InvalidInputError(message) from error
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        message = f"the {part} of data set {name!r} holds text that is not Unicode: {error}."
        raise InvalidInputError(message) from error
    if size > DETAIL_LIMIT_BYTES:
        message = (
            f"the {part} of data set {name!r} has {size:,} bytes, at most {DETAIL_LIMIT_BYTES:,} "
            "are kept. Shorten it, or log it as an artifact: run.log_dict(...)."
        )
        raise InvalidInputError(message)
    return text


def _json(found: Mapping[str, Any] | list[Any]) -> str:
    """Return JSON; of a list that is too long as much as fits, and how much is left out."""
    text = to_json(found)
    if not isinstance(found, list):
        return text
    kept = len(found)
    while kept and len(text.encode()) > _WORKED_OUT_BYTES:
        kept //= 2
        text = to_json([*found[:kept], {"left_out": len(found) - kept}])
    return text
