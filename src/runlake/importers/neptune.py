"""Projects of Neptune, as its exporter left them: Parquet files, and the files of runs beside them.

Neptune's service ended in March 2026; what people have is what `neptune-exporter` wrote: a folder
`data` with a folder per project, each run in one or more Parquet files of one schema, and a
folder `files`. Each row is one attribute of one run, or one point of a series.

Source: the README of `neptune-exporter`, "Data layout on disk".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from runlake._lazy import lazy
from runlake.errors import NotFoundError
from runlake.importers import histories
from runlake.importers.neptune_run import NeptuneRun, RunFiles, micros
from runlake.importers.source import Note, Source, SourceError, SourceExperiment, SourceRun

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa, pq = lazy("pyarrow"), lazy("pyarrow.parquet")

_NEEDED: Final = {
    "project_id",
    "run_id",
    "attribute_path",
    "attribute_type",
    "step",
    "timestamp",
    "float_value",
}
_PART: Final = re.compile(r"(.*?)_?part_(\d+)$")
_DIGITS: Final = 6  # of a step behind the point
_SCALED: Final = "steps were no whole numbers: all of the import are multiplied by {:,}"


def open_source(
    source: str,
    *,
    experiment: str | None = None,
    files: str | None = None,
    step_multiplier: str | None = None,
) -> Source:
    """Open what `neptune-exporter` wrote.

    Args:
        source: the folder with `data` and `files`, or `data` itself, or one Parquet file.
        experiment: the experiment of all runs; None takes each run's project.
        files: the exporter's `--files-path`; None takes `files` beside `data`.
        step_multiplier: a whole number: steps of Neptune may have six digits behind the point,
            ours are whole; None takes the least power of ten that makes all of them whole.

    Returns:
        The source; close it.

    Raises:
        NotFoundError: there is nothing.
        SourceError: it holds no export of Neptune, or one that is damaged.
    """
    root = Path(source)
    if not root.exists():
        raise NotFoundError(f"there is no {source!r}. Give the folder of an export of Neptune.")
    data = root / "data" if (root / "data").is_dir() else root
    beside = root / "files" if (root / "files").is_dir() else data.parent / "files"
    found = [root] if root.is_file() else sorted(data.rglob("*.parquet"), key=_order)
    parquet = [file for file in found if set(_columns(file)) >= _NEEDED]
    if not parquet:
        message = (
            f"{source!r} holds no export of Neptune: no Parquet file with the columns "
            f"{', '.join(sorted(_NEEDED))}."
        )
        raise SourceError(message)
    if step_multiplier is not None and not step_multiplier.isdecimal():
        raise SourceError(f"step_multiplier is a whole number, got {step_multiplier!r}.")
    multiplier = None if step_multiplier is None else int(step_multiplier)
    folder = Path(files) if files else beside
    return NeptuneExport(root, parquet, folder, experiment=experiment, multiplier=multiplier)


def _order(file: Path) -> tuple[Path, str, int]:
    """Return what sorts the parts of a run by their number."""
    part = _PART.match(file.stem)
    return (file.parent, part[1], int(part[2])) if part else (file.parent, file.stem, -1)


def _columns(file: Path) -> list[str]:
    try:
        return list(pq.read_schema(file).names)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{file} cannot be read as Parquet: {error}") from error


class NeptuneExport(Source):
    """The runs of an export."""

    kind = "neptune"

    def __init__(
        self,
        root: Path,
        parquet: Sequence[Path],
        files: Path,
        *,
        experiment: str | None,
        multiplier: int | None,
    ) -> None:
        """See `open_source`."""
        self.name = str(root)
        self._parquet = parquet
        self._files = files
        self._experiment = experiment
        self._multiplier = multiplier
        self._index: dict[tuple[str, str], list[Path]] | None = None
        self._finest = _DIGITS

    def count(self) -> int:
        """Return how many runs there are."""
        return len(self._runs())

    def runs(self) -> Iterator[SourceRun]:
        """Yield the runs by project and id.

        Raises:
            SourceError: a file is damaged.
        """
        index = self._runs()
        for (project, run_id), parquet in sorted(index.items()):
            files = RunFiles(project, run_id, parquet, self._files, self._scale())
            try:
                yield NeptuneRun(files).run(self._experiment, known=index)
            except SourceError as error:
                where = SourceExperiment(self._experiment or project)
                yield histories.unreadable(f"{project}/{run_id}", where, error)

    def notes(self) -> Iterator[Note]:
        """Return what was done to steps."""
        if self._scale() != 1:
            yield Note(_SCALED.format(self._scale()))

    def _scale(self) -> int:
        return self._multiplier or int(10 ** (_DIGITS - self._finest))

    def _runs(self) -> dict[tuple[str, str], list[Path]]:
        """Return the files of each run; the first time, every file's ids and steps are read."""
        if self._index is None:
            index: dict[tuple[str, str], list[Path]] = {}
            for file in self._parquet:
                for project, run_id in self._ids(file):
                    index.setdefault((project, run_id), []).append(file)
            self._index = index
        return self._index

    def _ids(self, file: Path) -> dict[tuple[str, str], None]:
        found: dict[tuple[str, str], None] = {}
        columns = ["project_id", "run_id", "step"]
        try:
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(columns=columns):
                    ids = pa.table(batch).group_by(["project_id", "run_id"]).aggregate([])
                    for row in ids.to_pylist():
                        found[str(row["project_id"]), str(row["run_id"])] = None
                    self._look(batch["step"])
        except (pa.ArrowException, OSError) as error:
            raise SourceError(f"{file} cannot be read as Parquet: {error}") from error
        return found

    def _look(self, steps: pa.Array[Any]) -> None:
        """Note how many digits steps need behind the point."""
        fine = micros(steps.drop_null()).to_numpy(zero_copy_only=False)
        while self._finest and (fine % 10**self._finest).any():
            self._finest -= 1
