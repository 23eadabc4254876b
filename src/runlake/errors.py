"""The exception tree: one class for each thing that the catcher can do about it.

- `InvalidInputError`: mend the call. Nothing was written.
- `FilterSyntaxError`: mend the filter where its caret points.
- `LimitExceededError`: ask for less, or allow more time, memory or rows.
- `NotFoundError`: name something that exists, or make it first.
- `AlreadyExistsError`: choose another name, or use what is there.
- `StateError`: the object is not in a state that allows this; open or resume it first.
- `ConflictError`: another writer was first; read again and decide again.
- `StorageError`: look at the store, the credentials, the network; trying later may help.
- `FormatError`: a file is not what `docs/spec/v1.md` says; `runlake verify` tells more.
- `NewerFormatError`: upgrade runlake; nothing is wrong with the file.
- `MissingDependencyError`: run the pip line in the message.

Every class carries a stable `kind` for programs, and is also the built-in that fits.
`DataLossWarning` is the only thing that says "some rows may be gone"; it is never silent.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Collection

# What lists all of a kind on the command line.
_LISTS: Final = {
    "experiment": 'sql "FROM experiments"',
    "metric": 'sql "SELECT DISTINCT key FROM metric_summary"',
    "param": 'sql "SELECT DISTINCT key FROM params"',
    "registered model": "models ls",
    "run": "ls",
    "tag": 'sql "SELECT DISTINCT key FROM tags"',
}


class RunlakeError(Exception):
    """The root of all errors that runlake raises on purpose.

    Attributes:
        kind: a stable code for programs; codes are only ever added.
        url: the lake or file that was meant, where one was.
    """

    kind: ClassVar[str] = "error"

    def __init__(self, message: str, *, url: str | None = None) -> None:
        """Keep the message, and the URL that it is about."""
        super().__init__(message)
        self.url = url


class InvalidInputError(RunlakeError, ValueError):
    """An argument has the wrong name, type or value; nothing was written."""

    kind = "invalid-input"


class FilterSyntaxError(InvalidInputError):
    """A filter or an order cannot be read.

    Attributes:
        line: where reading stopped, from 1.
        column: where reading stopped, from 1.
        caret: the line, and below it a caret at the column.
    """

    kind = "filter-syntax"

    def __init__(self, message: str, *, line: int = 1, column: int = 1, caret: str = "") -> None:
        """Keep the message, and where it points."""
        super().__init__(f"{message}\n{caret}" if caret else message)
        self.line = line
        self.column = column
        self.caret = caret

    @classmethod
    def at(
        cls, text: str, offset: int, *, expected: str, found: str, hint: str = ""
    ) -> FilterSyntaxError:
        """Build the error for one place in a filter.

        Args:
            text: the whole filter.
            offset: the place in it, in characters.
            expected: what could stand there.
            found: what stands there.
            hint: a sentence about what may have been meant.

        Returns:
            The error, to be raised.
        """
        before = text[:offset]
        line = before.count("\n") + 1
        start = before.rfind("\n") + 1
        column = offset - start + 1
        caret = f"    {text[start:].partition(chr(10))[0]}\n    {' ' * (column - 1)}^"
        message = f"line {line}, column {column}: expected {expected}, found {found}."
        message = f"{message} {hint}" if hint else message
        return cls(message, line=line, column=column, caret=caret)


class LimitExceededError(InvalidInputError):
    """A query needs more time, memory or rows than it may take."""

    kind = "limit-exceeded"


class NotFoundError(RunlakeError, LookupError):
    """The caller named something that this lake does not hold."""

    kind = "not-found"

    @classmethod
    def of(
        cls, what: str, name: str, *, url: str, known: Collection[str], count: int | None = None
    ) -> NotFoundError:
        """Build the error for one missing name, with its nearest neighbours as a hint.

        Args:
            what: the kind of thing, in the singular: `run`, `experiment`.
            name: what was asked for.
            url: the lake that was asked.
            known: the names that are there.
            count: how many there are, if `known` is only the nearest of them.

        Returns:
            The error, to be raised.
        """
        near = get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else ""
        if not near and what in _LISTS:
            hint = f"`runlake {_LISTS[what]}` lists all."
        count = len(known) if count is None else count
        held = f"{count} {what}{'' if count == 1 else 's'}"
        message = f"no {what} {name!r} in lake {url!r}, which holds {held}. {hint}"
        return cls(message.rstrip(), url=url)


class AlreadyExistsError(RunlakeError):
    """The name is taken."""

    kind = "already-exists"


class StateError(RunlakeError):
    """The run is finished, the lake is read-only, or the writer is closed."""

    kind = "state"


class ConflictError(RunlakeError):
    """Another writer won; the message says who and what to do."""

    kind = "conflict"


class StorageError(RunlakeError, OSError):
    """The filesystem said no; the cause is chained."""

    kind = "storage"


class FormatError(RunlakeError):
    """A file is not what the specification says: path, field, expected, found."""

    kind = "format"


class NewerFormatError(FormatError):
    """A newer runlake wrote this; the message holds the pip line. Nothing is wrong with it."""

    kind = "newer-format"


class MissingDependencyError(RunlakeError, ImportError):
    """An optional package is not installed; the message holds the pip line."""

    kind = "missing-dependency"


class RunlakeWarning(UserWarning):
    """Something went wrong outside, and runlake has dealt with it: nothing is lost."""


class DataLossWarning(RunlakeWarning):
    """Some rows may be gone; the message counts them."""
