"""What MLflow's stores have in common: what is no run comes once all runs came."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from runlake.importers.mlflow_models import bring_models
from runlake.importers.mlflow_orphans import bring_orphans
from runlake.importers.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from runlake.importers.mlflow_models import SourceModel
    from runlake.importers.mlflow_orphans import Orphan
    from runlake.importers.report import Report
    from runlake.lake import Lake


class MlflowSource(Source):
    """The runs of one of MLflow's stores, and its models.

    Attributes:
        orphans: the logged models that no run made; they are known once all runs were given.
    """

    kind = "mlflow"

    def __init__(self, name: str, *, experiment: str | None, models: bool) -> None:
        """Read nothing yet.

        Args:
            name: where the store is, without passwords.
            experiment: only the runs of this one, by name or id.
            models: whether registered models come too.
        """
        self.name = name
        self.orphans: list[Orphan] = []
        self._only = experiment
        self._models = models

    @abstractmethod
    def registered(self) -> Iterator[SourceModel]:
        """Yield the registered models.

        Raises:
            SourceError: they cannot be read.
        """

    def finish(self, lake: Lake, report: Report, *, artifacts: bool) -> None:
        """Bring logged models that no run made, and registered ones.

        Args:
            lake: where they go.
            report: takes what was done.
            artifacts: whether files come too.
        """
        bring_orphans(self.orphans, lake, report, artifacts=artifacts)
        if self._models:
            bring_models(self.registered(), lake, report)
