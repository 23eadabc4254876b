"""What does `import runlake` cost above the bare interpreter?

Processes are started in turn, bare, with runlake, and with each rival, so that a busy moment
hits all of them.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from benchmarks.harness import Figure, shown_rounds

if TYPE_CHECKING:
    from benchmarks.harness import Options

HEAVY: Final = ("duckdb", "fsspec", "numpy", "pandas", "polars", "pyarrow")
_MODULES: Final = {"tensorboardx": "tensorboardX"}


def measure(options: Options) -> list[Figure]:
    """Return milliseconds above the interpreter, and what was loaded."""
    count = options.size(25, quick=3)
    own = {"runlake": "import runlake", "runlake, names used": "import runlake; runlake.start_run"}
    above = _above(sys.executable, own, count)
    what, used = "import", "import and look a function up"
    figures = [
        _figure(what, "runlake", above["runlake"], bound=60.0),
        _figure(used, "runlake", above["runlake, names used"]),
    ]
    if options.against:
        scripts = {name: f"import {_MODULES.get(name, name)}" for name in options.against}
        found = _above(options.rival_python, scripts, max(3, count // 5))
        figures += [_figure(what, name, spans) for name, spans in found.items()]
    loaded = _loaded("import runlake; runlake.start_run")
    heavy = [name for name in HEAVY if name in loaded]
    note = ", ".join(heavy) or "none of " + ", ".join(HEAVY)
    figures.append(Figure("heavy libraries loaded", len(heavy), "", bound=0.0, note=note))
    figures.append(Figure("modules loaded", len(loaded), "", note="above the interpreter's own"))
    return figures


def _figure(what: str, who: str, spans: list[float], bound: float | None = None) -> Figure:
    note = shown_rounds(spans)
    return Figure(what, statistics.median(spans), "ms", who, bound=bound, note=note)


def _above(python: str, scripts: dict[str, str], count: int) -> dict[str, list[float]]:
    """Return, for each script, milliseconds above the bare interpreter, round by round."""
    found: dict[str, list[float]] = {name: [] for name in scripts}
    for script in ("pass", *scripts.values()):  # compiles, and fills the system's cache
        _span_ms(python, script)
    for _ in range(count):
        bare = _span_ms(python, "pass")
        for name, script in scripts.items():
            found[name].append(_span_ms(python, script) - bare)
    return found


def _span_ms(python: str, script: str) -> float:
    began = time.perf_counter()
    subprocess.run([python, "-c", script], check=True, capture_output=True)
    return (time.perf_counter() - began) * 1e3


def _loaded(script: str) -> set[str]:
    """Return the modules that a script loads and the bare interpreter does not."""
    names = []
    for each in ("pass", script):
        command = [sys.executable, "-c", f"{each}; import sys; print(*sys.modules)"]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        names.append(set(run.stdout.split()))
    return names[1] - names[0]
