"""What all parts of MLflow's tracking store on a lake share."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from runlake.mlflow_plugin.lakes import lake_of

if TYPE_CHECKING:
    from runlake.lake import Lake


class LakeStore:
    """A store that MLflow made for the address of a lake; threads may share it.

    Attributes:
        store_uri: of the lake, as MLflow has it.
        artifact_root: where experiments keep artifacts unless they say so themselves; None: in
            the lake.
        artifact_root_uri: the same, as MLflow's server looks for it.
    """

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        """Open the lake; nothing is read.

        Args:
            store_uri: of the lake.
            artifact_uri: where new experiments keep artifacts; None: in the lake.
        """
        self.store_uri = store_uri
        self.artifact_root = artifact_uri
        self.artifact_root_uri = artifact_uri
        self._opened = os.getpid(), lake_of(store_uri)
        super().__init__()

    def __reduce__(self) -> tuple[type[LakeStore], tuple[str, str | None]]:
        """Send only where the lake is to other processes; they open it anew."""
        return type(self), (self.store_uri, self.artifact_root_uri)

    @property
    def lake(self) -> Lake:
        """The lake; a forked child has its own."""
        pid, lake = self._opened
        if pid != os.getpid():
            lake = lake_of(self.store_uri)
            self._opened = os.getpid(), lake
        return lake
