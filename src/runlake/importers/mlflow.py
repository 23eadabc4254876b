"""Runs that MLflow tracked: a folder `mlruns`, a database, or a tracking server.

A folder is read as it is, without MLflow. Everything else goes through MLflow's own client, which
knows every version of its tables and its server's ways.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from runlake.errors import NotFoundError
from runlake.importers.mlflow_client import MlflowStore
from runlake.importers.mlflow_folder import MlflowFolder
from runlake.importers.source import SourceError

if TYPE_CHECKING:
    from runlake.importers.source import Source

_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_DATABASE: Final = b"SQLite format 3\0"


def open_source(
    source: str,
    *,
    experiment: str | None = None,
    registry: str | None = None,
    models: str = "true",
) -> Source:
    """Open what MLflow wrote.

    Args:
        source: a folder `mlruns`, or one that holds it; a SQLite file; or what MLflow calls a
            tracking URI: `sqlite:///mlflow.db`, `postgresql://...`, `http://...`.
        experiment: only the runs of this experiment, by name or id.
        registry: tracking URI of the registry, if it is elsewhere.
        models: `false` leaves registered models out.

    Returns:
        The source.

    Raises:
        NotFoundError: nothing is there.
        SourceError: it is nothing of MLflow's.
        MissingDependencyError: it takes MLflow's client, which is not installed.
    """
    has_models = models.lower() not in {"false", "no", "0"}
    if not _SCHEME.match(source) or source.startswith("file:"):
        place = Path(unquote(urlsplit(source).path) if source.startswith("file:") else source)
        if not place.exists():
            raise NotFoundError(f"there is no {str(place)!r} to import from.")
        if place.is_dir():
            return MlflowFolder(
                _tracked(place), experiment=experiment, models=has_models and registry is None
            )
        with place.open("rb") as file:
            if file.read(len(_DATABASE)) != _DATABASE:
                message = f"{source!r} is neither a folder of MLflow's nor a SQLite database."
                raise SourceError(message)
        source = f"sqlite:///{place.resolve()}"
    return MlflowStore(source, experiment=experiment, registry=registry, models=has_models)


def _tracked(place: Path) -> Path:
    """Return the folder with experiments at a place, or in its `mlruns`.

    Raises:
        SourceError: there is none.
    """
    for root in (place, place / "mlruns"):
        if root.is_dir() and any(root.glob("*/meta.yaml")):
            return root
    found = [name for name in ("mlflow.db", "mlruns.db") if (place / name).is_file()]
    hint = f" There is a database in it: {str(place / found[0])!r}." if found else ""
    message = f"{str(place)!r} holds no experiments of MLflow (no */meta.yaml).{hint}"
    raise SourceError(message)
