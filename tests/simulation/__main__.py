"""A long soak: `python -m tests.simulation --worlds 10000 --seed 1 --processes 2`."""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Final

from tests.simulation.running import WorldError, run_worlds

_BATCH: Final = 50


def main() -> int:
    """Run the worlds that the command line asks for; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--worlds", type=int, default=1000, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="of the first")
    parser.add_argument("--processes", type=int, default=1, help="that share them")
    parser.add_argument("--trace", action="store_true", help="print every request")
    asked = parser.parse_args()
    seeds = range(asked.seed, asked.seed + asked.worlds)
    batches = [seeds[start : start + _BATCH] for start in range(0, len(seeds), _BATCH)]
    begun_s = time.perf_counter()
    totals = [0, 0, 0]
    failures = done = 0
    with ProcessPoolExecutor(asked.processes) as pool:
        running = {pool.submit(run_worlds, of, trace=asked.trace): of for of in batches}
        for ended in as_completed(running):
            done += len(running[ended])
            try:
                totals = [sum(pair) for pair in zip(totals, ended.result(), strict=True)]
            except WorldError as failure:
                failures += 1
                _say(str(failure))
            spent_s = time.perf_counter() - begun_s
            _say(
                f"{done} worlds in {spent_s:.0f} s, {done / spent_s:.1f} a second: "
                f"{totals[0]} steps, {totals[1]} reads, {totals[2]} commits, {failures} failures"
            )
    return min(1, failures)


def _say(what: str) -> None:
    sys.stdout.write(what + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
