"""Things stay small: a file that needs more is two ideas, a function two deeds."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from tests.meta.tree import Function, functions, parse, shown, sources

if TYPE_CHECKING:
    from pathlib import Path

FILE_LINES = 400
FUNCTION_LINES = 60
BY_POSITION = 2
# What users call. The module functions and `Run` keep MLflow's order, which scripts rely on;
# inside, ruff allows four.
FACES = ("lake.py", "questions.py", "maintain.py", "experiments.py", "artifacts/store.py")


def lines_of_code(function: Function) -> int:
    """Count a function's lines without its docstring."""
    assert function.end_lineno is not None
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if isinstance(first, ast.Expr) and ast.get_docstring(function) is not None:
        assert first.end_lineno is not None
        lines -= first.end_lineno - first.lineno + 1
    return lines


def lines_without_contracts(file: Path) -> int:
    """Count a file's lines without its docstrings: a contract told in full is no second idea."""
    tree = parse(file)
    told = 0
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(
            node
        ):
            first = node.body[0]
            told += (first.end_lineno or first.lineno) - first.lineno + 1
    return len(file.read_text("utf-8").splitlines()) - told


def test_every_file_keeps_its_line_budget() -> None:
    lines = {shown(file): lines_without_contracts(file) for file in sources()}
    assert {file: count for file, count in lines.items() if count > FILE_LINES} == {}


def test_every_function_keeps_its_line_budget() -> None:
    lines = {
        f"{shown(file, function)} {function.name}": lines_of_code(function)
        for file in sources()
        for function in functions(parse(file))
    }
    assert {name: count for name, count in lines.items() if count > FUNCTION_LINES} == {}


def by_position(function: Function) -> int:
    """Count the parameters that may be given without their names."""
    arguments = [*function.args.posonlyargs, *function.args.args]
    return len([each for each in arguments if each.arg not in {"self", "cls"}])


def test_public_functions_take_two_parameters_by_position_and_the_rest_by_name() -> None:
    counts = {
        f"{shown(file, function)} {function.name}": by_position(function)
        for file in sources()
        if file.as_posix().endswith(FACES) and "mlflow_plugin" not in file.parts
        for function in functions(parse(file))
        if not function.name.startswith("_")
    }
    assert {name: count for name, count in counts.items() if count > BY_POSITION} == {}
