"""The names of all commands; what a command does is loaded when it is called."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from importlib import import_module
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    import click

_MODULES: Final = {
    "demo": ["demo"],
    "runs": ["ls", "show", "diff"],
    "query": ["best", "sql", "export"],
    "history": ["history"],
    "artifacts": ["artifacts"],
    "models": ["models"],
    "watch": ["watch"],
    "alerts": ["alerts", "logs"],
    "lake": ["info", "verify", "recover"],
    "upkeep": ["compact", "vacuum", "purge", "copy", "publish"],
    "importing": ["import"],
}


@final
class Commands(MutableMapping[str, "click.Command"]):
    """All commands by name. Help loads them all, a command only its own module."""

    def __init__(self) -> None:
        """Load nothing."""
        self._homes: dict[str, str | click.Command] = {
            name: module for module, names in _MODULES.items() for name in names
        }

    def __getitem__(self, name: str) -> click.Command:
        """Load a command."""
        home = self._homes[name]
        if isinstance(home, str):
            module = import_module(f"runlake.cli.{home}")
            self._homes |= {command.name: command for command in module.COMMANDS}
            return self[name]
        return home

    def __setitem__(self, name: str, command: click.Command) -> None:
        """Add a command."""
        self._homes[name] = command

    def __delitem__(self, name: str) -> None:
        """Take a command away."""
        del self._homes[name]

    def __iter__(self) -> Iterator[str]:
        """Go through the names."""
        return iter(self._homes)

    def __len__(self) -> int:
        """Count them."""
        return len(self._homes)
