from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks import far, lakes
from benchmarks.data import Sweep
from benchmarks.lakes import Shape
from benchmarks.tasks import fingerprint

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.timeout(120)  # starts two processes
def test_question_to_a_far_store_is_counted_and_the_cache_spares_the_next_process(
    tmp_path: Path,
) -> None:
    made = lakes.write(tmp_path / "lake", Shape(sweep=Sweep(runs=3), runs_per_writer=1))
    first, second = far.ask(made.folder, tmp_path / "cache", "search")
    assert first.requests > second.requests > 0
    assert first.waited_s <= first.seconds
    assert first.waited_s >= far.LATENCY_S
    again, _ = far.ask(made.folder, tmp_path / "cache", "search")
    assert again.requests < first.requests


def test_fingerprint_of_names_tells_other_runs_and_another_order() -> None:
    found = {fingerprint(names) for names in (["run-1", "run-2"], ["run-2", "run-1"], ["run-1"])}
    assert len(found) == 3
