"""Where the reading half of the registry reads: the store as it is now, or one snapshot."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final

if TYPE_CHECKING:
    from collections.abc import Callable

    from runlake.query.engine import Query
    from runlake.query.registered import Registered

_Answer = TypeVar("_Answer")


class Standing(Protocol):
    """What stands in the registry."""

    @property
    def url(self) -> str:
        """The lake."""

    def ask(self, answer: Callable[[Query], _Answer]) -> _Answer:
        """Answer a question about the reserved partition."""

    def read(self) -> Registered:
        """Return what stands."""

    def last(self) -> Registered:
        """Return what stood when this thread last read it."""


@final
class StoodAt:
    """What stood in the registry at one snapshot; nothing is read but that."""

    def __init__(self, url: str, ask: Callable[[Callable[[Query], Any]], Any]) -> None:
        """Read nothing yet.

        Args:
            url: of the lake.
            ask: answers a question from the snapshot.
        """
        self.url = url
        self._ask = ask

    def ask(self, answer: Callable[[Query], _Answer]) -> _Answer:
        """Answer a question from the snapshot.

        Args:
            answer: to a query over it.

        Returns:
            The answer.

        Raises:
            StorageError: its objects are gone, or cannot be read.
        """
        found: _Answer = self._ask(answer)
        return found

    def read(self) -> Registered:
        """Return what stood.

        Raises:
            StorageError: its objects are gone, or cannot be read.
        """
        return self.ask(lambda query: query.folded.registered)

    last = read
