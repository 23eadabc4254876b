"""The tree is about runlake only: no machine's paths, no registry, nothing stray at the top."""

from __future__ import annotations

import re

from tests.meta.tree import ROOT, tracked

TOP = {
    ".ci",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "benchmarks",
    "docs",
    "examples",
    "pyproject.toml",
    "src",
    "tests",
}
MACHINE_PATH = re.compile(r"(?<![\w.~}$-])/(?:farm|home|opt|root|tmp|work)/\w")
REGISTRY = re.compile(r"pypi\.(?:org|io)|pythonhosted\.|registry\.npmjs|deb\.debian|proxy\.golang")


def lines_with(pattern: re.Pattern[str]) -> list[str]:
    """Return where a pattern stands in the text files of the tree."""
    found = []
    for file in tracked():
        try:
            lines = file.read_text("utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        place = file.relative_to(ROOT)
        found += [f"{place}:{n} {line}" for n, line in enumerate(lines, 1) if pattern.search(line)]
    return found


def test_the_top_level_holds_what_it_should() -> None:
    assert {file.relative_to(ROOT).parts[0] for file in tracked()} - TOP == set()


def test_no_file_names_a_path_of_some_machine() -> None:
    assert lines_with(MACHINE_PATH) == []


def test_no_file_names_a_package_registrys_host() -> None:
    assert lines_with(REGISTRY) == []


def test_no_large_file_is_in_the_tree() -> None:
    sizes = {str(file.relative_to(ROOT)): file.stat().st_size for file in tracked()}
    assert {name: size for name, size in sizes.items() if size > 1 << 20} == {}


def test_version_stands_in_one_place() -> None:
    text = (ROOT / "src" / "runlake" / "_version.py").read_text("utf-8")
    (version,) = re.findall(r'^__version__ = "(.+)"$', text, flags=re.MULTILINE)
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:\.dev\d+)?", version)
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text("utf-8")
