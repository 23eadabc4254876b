"""The simulation has teeth: with a rule of the protocol taken out, a world notices."""

from __future__ import annotations

from inspect import isfunction
from typing import TYPE_CHECKING

import pytest

from tests.simulation import mutants
from tests.simulation.mutants import NOTICED_BY, TEETH, UNNOTICED
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
    with pytest.raises(WorldError) as noticed:
        run_worlds(range(first, first + _MOST_WORLDS), theme=TEETH[mutant])
    monkeypatch.undo()
    run_worlds([noticed.value.seed], theme=TEETH[mutant])  # the rule is what was missed


def test_every_rule_is_noticed_alone_or_with_the_one_that_makes_up_for_it() -> None:
    found = [each for each in vars(mutants).values() if _is_mutant(each)]
    assert {*found} == {*TEETH, *UNNOTICED}
    assert set(UNNOTICED.values()) <= set(TEETH)


def _is_mutant(found: object) -> bool:
    return isfunction(found) and found.__module__ == mutants.__name__
