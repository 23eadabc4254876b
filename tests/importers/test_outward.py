"""A way out that is ended in between: the next one finishes it."""

from __future__ import annotations

import importlib
import shutil
from typing import TYPE_CHECKING, Any, Final

import pytest

from runlake import ids
from runlake.importers import export_to
from runlake.lake import open_lake
from runlake.testing.filesystems import SimulatedCrash

if TYPE_CHECKING:
    from pathlib import Path

    from runlake.lake import Lake

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

_READS: Final = ("get_", "search_", "list_")


class DyingClient:
    """MLflow's client in a process that dies right after its n-th change."""

    def __init__(self, client: Any, changes: int) -> None:  # noqa: ANN401 - MLflow's
        """Wrap a client."""
        self._client, self._left = client, changes

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - MLflow's
        """Return what the client has; a change counts."""
        found = getattr(self._client, name)
        if not callable(found) or name.startswith(("_", *_READS)):
            return found

        def change(*args: object, **given: object) -> object:
            made = found(*args, **given)
            self._left -= 1
            if self._left == 0:
                raise SimulatedCrash
            return made

        return change


def _fill(lake: Lake, name: str) -> None:
    """A run that ended, and a registered model of which two versions were deleted."""
    with lake.start_run("a", experiment=name) as run:
        run.log_metric("loss", 1.0, step=0)
        run.log_param("lr", 0.1)
    registry = lake.registry
    registry.create_registered_model(name, description="a net")
    for number in (1, 2, 3):
        registry.create_model_version(name, f"runs:/{run.run_id}/net", tags={"n": str(number)})
    registry.delete_model_version(name, 1)
    registry.delete_model_version(name, 3)
    registry.transition_model_version_stage(name, 2, "Staging")


@pytest.mark.slow
def test_whoever_dies_behind_any_change_is_finished_by_the_next(
    empty_database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{shutil.copy(empty_database, tmp_path / 'out.db')}"
    outward = importlib.import_module("runlake.importers.outward")
    client = outward.client_of(uri)
    has_died, changes = True, 0
    while has_died:
        changes += 1
        name = f"n{changes}"
        with open_lake(f"memory://{ids.new_nonce()}/lake", refresh=0) as lake:
            _fill(lake, name)
            dying = DyingClient(client, changes)
            with monkeypatch.context() as patch:
                patch.setattr(outward, "client_of", lambda _, dying=dying: dying)
                try:
                    export_to("mlflow", uri, lake)
                except SimulatedCrash:
                    pass
                else:
                    has_died = False
                patch.setattr(outward, "client_of", lambda _: client)
                assert export_to("mlflow", uri, lake).problems == [], changes
        (run,) = client.search_runs([client.get_experiment_by_name(name).experiment_id])
        assert (run.info.status, run.data.metrics) == ("FINISHED", {"loss": 1.0}), changes
        (version,) = client.search_model_versions(f"name='{name}'")
        assert (int(version.version), version.current_stage) == (2, "Staging"), changes
        assert int(client.create_model_version(name, "s3://later").version) == 4, changes
    assert changes > 10
