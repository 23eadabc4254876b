"""The exception tree: one class for each thing that the catcher can do about it."""

from __future__ import annotations

import pytest

from runlake import errors
from runlake.errors import FilterSyntaxError, NotFoundError, RunlakeError

# What programs may rely on: the code and the built-in of each class. Rows are only ever added.
TREE = {
    "RunlakeError": ("error", Exception),
    "AlreadyExistsError": ("already-exists", Exception),
    "ConflictError": ("conflict", Exception),
    "FilterSyntaxError": ("filter-syntax", ValueError),
    "FormatError": ("format", Exception),
    "InvalidInputError": ("invalid-input", ValueError),
    "LimitExceededError": ("limit-exceeded", ValueError),
    "MissingDependencyError": ("missing-dependency", ImportError),
    "NewerFormatError": ("newer-format", Exception),
    "NotFoundError": ("not-found", LookupError),
    "StateError": ("state", Exception),
    "StorageError": ("storage", OSError),
}


def error_classes() -> dict[str, type[RunlakeError]]:
    """Return every error class of the module, by name."""
    found: list[type[RunlakeError]] = [RunlakeError]
    for error in found:
        found += [below for below in error.__subclasses__() if below not in found]
    return {error.__name__: error for error in found if error.__module__ == errors.__name__}


def test_each_error_keeps_its_code_and_its_builtin() -> None:
    classes = error_classes()
    assert {name: classes[name].kind for name in TREE} == {name: TREE[name][0] for name in TREE}
    assert [name for name in TREE if not issubclass(classes[name], TREE[name][1])] == []


def test_each_error_has_a_code_of_its_own() -> None:
    kinds = [error.kind for error in error_classes().values()]
    assert sorted(kinds) == sorted(set(kinds))


def test_each_error_is_told_of_in_the_modules_first_words() -> None:
    assert errors.__doc__ is not None
    missing = [name for name in error_classes() if f"`{name}`" not in errors.__doc__]
    assert missing == ["RunlakeError"]


@pytest.mark.parametrize("name", sorted(TREE.keys() - {"FilterSyntaxError"}))
def test_an_error_is_caught_as_runlakes_own_and_carries_message_and_url(name: str) -> None:
    error = error_classes()[name]
    with pytest.raises(RunlakeError) as caught:
        raise error("what was asked", url="s3://team/lake")
    assert str(caught.value) == "what was asked"
    assert caught.value.url == "s3://team/lake"


def test_not_found_names_the_lake_its_size_and_the_nearest_names() -> None:
    error = NotFoundError.of("run", "0193a7", url="s3://team/lake", known=["0193a8", "ffffff"])
    assert str(error) == (
        "no run '0193a7' in lake 's3://team/lake', which holds 2 runs. Did you mean '0193a8'?"
    )
    assert error.url == "s3://team/lake"


def test_not_found_without_a_near_name_says_what_lists_all() -> None:
    error = NotFoundError.of("run", "x", url="lake", known=["0193a8"])
    assert str(error) == "no run 'x' in lake 'lake', which holds 1 run. `runlake ls` lists all."


def test_not_found_names_the_command_that_lists_all_of_the_kind_where_there_is_one() -> None:
    metric = NotFoundError.of("metric", "x", url="lake", known=["acc"])
    assert str(metric).endswith(
        '`runlake sql "SELECT DISTINCT key FROM metric_summary"` lists all.'
    )
    artifact = NotFoundError.of("artifact", "x", url="lake", known=["model.pt"])
    assert str(artifact) == "no artifact 'x' in lake 'lake', which holds 1 artifact."


def test_a_wrong_filter_points_at_the_place_with_a_caret() -> None:
    error = FilterSyntaxError.at("a = 1\nAND b ~ 2", 12, expected="an operator", found="'~'")
    assert (error.line, error.column) == (2, 7)
    assert str(error) == (
        "line 2, column 7: expected an operator, found '~'.\n    AND b ~ 2\n          ^"
    )


def test_data_loss_is_a_warning_of_its_own() -> None:
    assert issubclass(errors.DataLossWarning, errors.RunlakeWarning)
    assert issubclass(errors.RunlakeWarning, UserWarning)
