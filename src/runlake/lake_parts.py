"""What modules of this package do with a lake, beyond what everybody may.

A lake's own methods are for people; these give its parts, and are no part of the public face.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runlake.errors import StorageError
from runlake.writing.run_rows import RunRows

if TYPE_CHECKING:
    from runlake.experiments import Experiments
    from runlake.lake import Lake
    from runlake.query.entities import Experiment
    from runlake.storage.engine import Storage


def ensure_experiment(lake: Lake, name: str) -> str:
    """Return the id of an experiment; make it where there is none.

    Where the store is away, the id is the one that follows from the name.

    Args:
        lake: the lake.
        name: 1 to 500 printable characters.

    Raises:
        InvalidInputError: the name is none.
        StateError: the experiment is deleted, or the lake is read-only.
    """
    lake._check_writable()  # noqa: SLF001 - this is what the module is for
    return lake._experiments.resolve(name)  # noqa: SLF001 - as above


def describe_experiment(lake: Lake, experiment_id: str) -> Experiment:
    """Return an experiment; where the store is away, what follows from its id and name.

    Args:
        lake: the lake.
        experiment_id: the experiment.
    """
    try:
        found = lake._find_experiment(experiment_id)  # noqa: SLF001 - as above
    except StorageError:
        found = None
    return found or lake._experiments.unseen(experiment_id)  # noqa: SLF001 - as above


def experiments_of(lake: Lake) -> Experiments:
    """Return what makes and finds the experiments of a lake.

    Args:
        lake: the lake.
    """
    return lake._experiments  # noqa: SLF001 - as above


def writable_experiments_of(lake: Lake) -> Experiments:
    """Return what `experiments_of` does, to change something.

    Args:
        lake: the lake.

    Raises:
        StateError: the lake is read-only.
    """
    lake._check_writable()  # noqa: SLF001 - as above
    return experiments_of(lake)


def rows_of(lake: Lake, run_id: str, *, experiment_id: str, experiment_name: str) -> RunRows:
    """Return what takes rows of a run that this process need not have begun.

    Args:
        lake: the lake.
        run_id: the run, new or not, open or ended.
        experiment_id: where it lies.
        experiment_name: as far as known.

    Raises:
        StateError: the lake is read-only.
    """
    lake._check_writable()  # noqa: SLF001 - as above
    return RunRows(lake._drain, run_id, experiment_id, experiment_name)  # noqa: SLF001 - as above


def storage_of(lake: Lake) -> Storage:
    """Return where a lake's objects are; what this process has not brought there is not.

    Args:
        lake: the lake.
    """
    return lake._storage  # noqa: SLF001 - as above
