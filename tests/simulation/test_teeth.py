"""The simulation has teeth: with a rule of the protocol taken out, a world notices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.simulation.mutants import NOTICED_BY, TEETH
from tests.simulation.running import WorldError, run_worlds

if TYPE_CHECKING:
    from tests.simulation.mutants import Mutant

# When the code changes, other worlds are the first to notice.
_MOST_WORLDS = 300


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mutant", TEETH, ids=lambda mutant: str(mutant.__name__))
def test_rule_that_is_broken_is_noticed(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    mutant(monkeypatch)
    first = NOTICED_BY.get(mutant, 0)
    with pytest.raises(WorldError):
        run_worlds(range(first, first + _MOST_WORLDS), theme=TEETH[mutant])
