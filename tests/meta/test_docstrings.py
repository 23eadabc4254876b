"""A public function is a contract, so its docstring is complete."""

from __future__ import annotations

import ast
import builtins
import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from runlake import errors
from tests.meta.tree import SRC, Function, functions, parse, shown, sources

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The classes whose methods users call: each parameter is told of, however few there are.
FACES = {"Lake", "Questions", "Run"}
# Elsewhere one sentence may tell of this many parameters.
TOLD_IN_A_SENTENCE = 2
# A docstring may point to the method that it delegates to: As `Run.log_param`.
POINTER = re.compile(r"\bAs `(\w+)\.(\w+)`")


@dataclass(frozen=True)
class Contract:
    """One public function, with the class that it is in."""

    file: Path
    owner: ast.ClassDef | None
    function: Function

    @property
    def parameters(self) -> list[str]:
        """The names that a caller may give."""
        arguments = self.function.args
        named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        named += [extra for extra in (arguments.vararg, arguments.kwarg) if extra]
        return [each.arg for each in named if each.arg not in {"self", "cls"}]

    @property
    def doc(self) -> str:
        """The docstring, indentation removed."""
        return ast.get_docstring(self.function) or ""

    def __str__(self) -> str:
        """Say where it stands."""
        owner = f"{self.owner.name}." if self.owner else ""
        return f"{shown(self.file, self.function)} {owner}{self.function.name}"

    def section(self, title: str) -> list[str] | None:
        """Return the names that a section lists, None if there is no such section."""
        found = re.search(rf"^{title}:\n((?:    .*\n|\n)*)", self.doc + "\n", flags=re.MULTILINE)
        if found is None:
            return None
        return re.findall(r"^    \*{0,2}(\w[\w.]*)(?: \(.*?\))?:", found[1], flags=re.MULTILINE)

    def is_told_elsewhere(self) -> bool:
        """Tell whether the docstring points to one that says it all, or overrides one."""
        bases = [ast.unparse(base) for base in self.owner.bases] if self.owner else []
        overrides = any((base, self.function.name) in abstract_methods() for base in bases)
        return overrides or POINTER.search(self.doc) is not None


@cache
def abstract_methods() -> set[tuple[str, str]]:
    """Return class and name of each method that other classes must bring."""
    return {
        (owner.name, method.name)
        for file in sources()
        for owner in ast.walk(parse(file))
        if isinstance(owner, ast.ClassDef)
        for method in functions(owner)
        if any("abstractmethod" in ast.unparse(each) for each in method.decorator_list)
    }


def contracts() -> Iterator[Contract]:
    """Yield every function that other modules, or users, may call."""
    for file in sources():
        for node in parse(file).body:
            if isinstance(node, ast.FunctionDef):
                if not (node.name.startswith("_") or is_overload(node)):
                    yield Contract(file, None, node)
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                methods = (below for below in node.body if isinstance(below, ast.FunctionDef))
                shown_methods = (m for m in methods if m.name[0] != "_" and not is_overload(m))
                yield from (Contract(file, node, method) for method in shown_methods)


def is_overload(function: Function) -> bool:
    """Tell whether this is for type checkers only; the last of its name tells it all."""
    return any(ast.unparse(each) == "overload" for each in function.decorator_list)


def own_raises(function: Function) -> set[str]:
    """Return the error classes that a function's own body raises."""
    inner = {id(n) for f in functions(function) if f is not function for n in ast.walk(f)}
    raised = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) and node.exc is not None and id(node) not in inner:
            name = re.match(r"[\w.]+", ast.unparse(node.exc))
            # `NotFoundError.of(...)` raises the class before the dot.
            parts = [part for part in name[0].split(".") if part.endswith("Error")] if name else []
            raised |= set(parts[-1:])
    return raised - {"NotImplementedError"}


def with_parents(name: str) -> set[str]:
    """Return the names under which an error may be told of: its own, and those it is caught by."""
    error = getattr(errors, name, None) or getattr(builtins, name, None)
    return {name} | {above.__name__ for above in getattr(error, "__mro__", ())}


def test_every_public_function_has_a_docstring() -> None:
    assert [str(each) for each in contracts() if not each.doc] == []


def test_args_name_every_parameter_and_no_other() -> None:
    listed = {str(each): (each.section("Args"), each.parameters) for each in contracts()}
    wrong = {name: pair for name, pair in listed.items() if pair[0] not in (None, pair[1])}
    assert wrong == {}


def test_args_stand_wherever_a_sentence_cannot_tell() -> None:
    missing = []
    for each in contracts():
        is_face = each.owner is not None and each.owner.name in FACES
        few = 0 if is_face else TOLD_IN_A_SENTENCE
        told = each.section("Args") is not None or each.is_told_elsewhere()
        if len(each.parameters) > few and not told:
            missing.append(str(each))
    assert missing == []


def test_returns_stand_beside_args_wherever_something_is_returned() -> None:
    missing = []
    for each in contracts():
        returns = ast.unparse(each.function.returns) if each.function.returns else "None"
        if returns in {"None", "NoReturn", "Never"} or each.section("Args") is None:
            continue
        if each.doc.startswith(("Return ", "Yield ", "Tell ")):
            continue
        if each.section("Returns") is None and each.section("Yields") is None:
            missing.append(str(each))
    assert missing == []


def test_raises_name_every_error_that_the_body_raises() -> None:
    missing = {}
    for each in contracts():
        told = set(each.section("Raises") or [])
        untold = {name for name in own_raises(each.function) if not told & with_parents(name)}
        if untold and not each.is_told_elsewhere():
            missing[str(each)] = sorted(untold)
    assert missing == {}


def test_a_docstring_that_points_elsewhere_points_at_a_method_that_is_there() -> None:
    methods = {(each.owner.name, each.function.name) for each in contracts() if each.owner}
    # A lake is its questions, its changes and more.
    methods |= {("Lake", name) for owner, name in methods if owner in {"Questions", "Changes"}}
    methods |= {("Run", name) for owner, name in methods if owner == "RunFiles"}
    pointers = {(str(each), target) for each in contracts() for target in POINTER.findall(each.doc)}
    assert sorted(name for name, target in pointers if target not in methods) == []


def test_every_module_and_public_class_opens_with_what_it_is_for() -> None:
    silent = []
    for file in sources():
        public: list[ast.Module | ast.ClassDef] = [parse(file)]
        classes = (node for node in parse(file).body if isinstance(node, ast.ClassDef))
        public += [node for node in classes if not node.name.startswith("_")]
        silent += [shown(file, node) for node in public if not ast.get_docstring(node)]
    assert silent == []


def test_an_incomplete_docstring_is_seen() -> None:
    (function,) = functions(
        ast.parse('''
def thin(curve, *, points):
    """Thin a curve.

    Args:
        curve: what to thin,
            however long.

    Raises:
        StateError: not now.
    """
    if points < 4:
        raise InvalidInputError("points")
    raise errors.NotFoundError.of("run", "x")
''')
    )
    contract = Contract(SRC / "thin.py", None, function)
    assert contract.section("Args") == ["curve"]
    assert contract.parameters == ["curve", "points"]
    assert contract.section("Returns") is None
    assert contract.section("Raises") == ["StateError"]
    assert own_raises(function) == {"InvalidInputError", "NotFoundError"}
