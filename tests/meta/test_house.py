"""Some deeds belong to one place of the house, and the linters do not know which."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

from tests.meta.tree import ROOT, SRC, functions, parse, shown, sources

if TYPE_CHECKING:
    from collections.abc import Iterator

# Library: the files, as patterns below the package, that may name it at run time.
MAY_LOAD = {
    "adlfs": ("storage/objectstores.py",),
    "fsspec": ("storage/*fs.py", "dataset/files.py"),  # a data set may lie anywhere
    "gcsfs": ("storage/objectstores.py",),
    "s3fs": ("storage/objectstores.py",),
    "duckdb": ("query/*",),
    "pandas": ("query/export.py",),
    "polars": ("query/*",),
    "psutil": ("system/*",),
    "pynvml": ("system/gpu.py",),
    "random": ("ids.py", "testing/*"),  # the kit's faults are drawn from a seed
    "secrets": ("ids.py",),
    "uuid": ("ids.py",),
}
# Loaded through `_lazy` only, so that importing runlake stays cheap.
HEAVY = {"adlfs", "duckdb", "fsspec", "gcsfs", "numpy", "pandas", "polars", "pyarrow", "s3fs"}
# Where a broad `except` is right, and why: (file, function).
MAY_CATCH_ALL = {
    ("artifacts/figures.py", "_plotly"): "it starts a browser, which fails with anything",
    ("companions.py", "_begin"): "a run begins, whatever cannot run beside it",
    ("importers/mlflow_client.py", "told"): "a database's driver has errors of its own",
    ("provenance/collector.py", "_describe"): "what cannot be found out is noted, beside the rest",
    ("provenance/collector.py", "_keep"): "a run goes on without its patch, and says so",
    ("query/confine.py", "work"): "hands every failure over to the thread that asked",
    ("run.py", "_end_companions"): "a run ends, whatever ran beside it",
    ("system/gpu.py", "__init__"): "a driver that is wrong in any way is no GPU",
    ("system/sampler.py", "_sample"): "one reading that fails must not keep the others",
    ("system/sampler.py", "_serve"): "training goes on, and so do the samples of other runs",
    ("storage/ioloop.py", "task"): "hands every failure over to the thread that asked",
    ("storage/source.py", "_serve"): "hands every failure over to the thread that feeds it",
    ("storage/objectfs.py", "_try"): "each store's library has errors of its own",
    ("storage/objectfs.py", "_put_absent"): "any error may hide that the object was written",
    ("storage/plainfs.py", "_ask"): "each store's library has errors of its own",
    ("upkeep/automatic.py", "_do"): "whoever logs or reads must not fail by upkeep",
    ("upkeep/checks/chunks.py", "distrusted"): "damaged bytes make decoders raise anything",
    ("writing/drain.py", "_serve"): "the thread must live: rows wait in the journal",
    ("writing/drain.py", "_upkeep"): "the thread must live, whatever an old journal holds",
    ("writing/recover.py", "_recover"): "one bad journal must not keep the others",
}


def is_type_checking(node: ast.AST) -> bool:
    """Tell whether a node is `if TYPE_CHECKING:`."""
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes below that exist at run time."""
    waiting = [node]
    while waiting:
        above = waiting.pop()
        below = [*ast.iter_child_nodes(above)]
        if isinstance(above, ast.If) and is_type_checking(above):
            below = [*above.orelse]
        waiting += below
        yield from below


def imported(node: ast.AST) -> list[str]:
    """Return the packages that an import statement names."""
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module.partition(".")[0]]
    return []


def deferred(node: ast.AST) -> list[str]:
    """Return the package that `lazy("x")` or `need("x")` names."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        return []
    if node.func.id not in {"lazy", "need"} or not node.args:
        return []
    name = node.args[0]
    return [str(name.value).partition(".")[0]] if isinstance(name, ast.Constant) else []


def may_load(package: str, file: Path) -> bool:
    """Tell whether a file is a place for a package."""
    place = file.relative_to(SRC).as_posix()
    patterns = MAY_LOAD.get(package, ("*",))
    return any(Path(place).match(pattern) for pattern in patterns)


def test_each_library_is_named_only_in_its_place() -> None:
    strays = [
        f"{shown(file, node)} {package}"
        for file in sources()
        for node in running_nodes(parse(file))
        for package in imported(node) + deferred(node)
        if not may_load(package, file)
    ]
    assert strays == []


def test_heavy_libraries_are_imported_through_the_lazy_door_only() -> None:
    strays = [
        f"{shown(file, node)} {package}"
        for file in sources()
        for node in running_nodes(parse(file))
        for package in imported(node)
        if package in HEAVY
    ]
    assert strays == []


ASKS_THE_TIME = re.compile(
    r"time\.(?:time|monotonic|perf_counter)(?:_ns)?|(?:datetime\.)?(?:date|datetime)\.(?:now|today|utcnow)"
)
DRAWS = re.compile(r"os\.(?:urandom|getrandom)")
TELLING = re.compile(r"time|monotonic|perf_counter|now|today|utcnow|urandom|getrandom")


def test_only_the_clock_asks_the_time_and_only_ids_draw_random_bits() -> None:
    strays = [
        f"{shown(file, node)} {ast.unparse(node)}"
        for file in sources()
        for node in ast.walk(parse(file))
        if isinstance(node, ast.Attribute) and TELLING.match(node.attr)
        if (file.name != "clock.py" and ASKS_THE_TIME.fullmatch(ast.unparse(node)))
        or (file.name != "ids.py" and DRAWS.fullmatch(ast.unparse(node)))
    ]
    assert strays == []


def test_a_rule_that_is_suppressed_is_named_with_its_reason() -> None:
    suppressed = re.compile(r"#\s*noqa")
    reasoned = re.compile(r"# noqa: [A-Z]+\d+(?:, [A-Z]+\d+)* - \S")
    strays = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in sources()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if suppressed.search(line) and not reasoned.search(line)
    ]
    assert strays == []


def swallows_all(node: ast.AST) -> bool:
    """Tell whether a node is an `except` that takes everything and does not pass it on."""
    if not isinstance(node, ast.ExceptHandler):
        return False
    caught = ast.unparse(node.type).strip("()").split(", ") if node.type else ["BaseException"]
    ending = node.body[-1]
    passed_on = isinstance(ending, ast.Raise) and ending.exc is None
    return bool({"Exception", "BaseException"} & set(caught)) and not passed_on


def test_broad_excepts_stand_in_the_named_places_only() -> None:
    places = set()
    for file in sources():
        tree = parse(file)
        if not any(map(swallows_all, ast.walk(tree))):
            continue
        # Outer functions come first, so that the innermost is the one that is kept.
        holders = {
            id(node): function.name
            for function in functions(tree)
            for node in ast.walk(function)
            if swallows_all(node)
        }
        places |= {(file.relative_to(SRC).as_posix(), name) for name in holders.values()}
    assert places == set(MAY_CATCH_ALL)
