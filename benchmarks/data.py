"""What the benchmarks log: made from seeds, so that every tracker gets the same.

Two kinds of numbers, because they differ in how small they can become: losses as training
makes them, computed in float32 (29 of the 52 bits of the fraction are zero), and true float64
noise, which nothing can make smaller than about 7.5 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

STRANGE: Final = 5
_FAILS: Final = 20


def curve(count: int, *, seed: int) -> NDArray[np.float64]:
    """Return a falling, noisy loss, shape (count,); every value is a float32's."""
    random = np.random.default_rng(seed)
    decay = np.exp(-np.arange(count) / max(1, count) * random.uniform(3, 6))
    noisy = (decay + 0.05) * (1 + 0.1 * random.standard_normal(count))
    return noisy.astype(np.float32).astype(np.float64)


def noise(count: int, *, seed: int) -> NDArray[np.float64]:
    """Return numbers of which every bit counts, shape (count,)."""
    return np.random.default_rng(seed).standard_normal(count)


def moments(count: int, *, seed: int) -> NDArray[np.int64]:
    """Return the times of steps of about 50 ms, shape (count,), microseconds since 1970."""
    spans = np.random.default_rng(seed).normal(50_000, 1_500, count).astype(np.int64)
    return 1_750_000_000_000_000 + np.cumsum(np.maximum(spans, 1))


def keys(width: int) -> list[str]:
    """Return metric keys as people name them."""
    names = ["train/loss", "val/loss", "val/accuracy", "train/lr", "train/grad_norm"]
    return [f"{names[n % len(names)]}_{n // len(names)}" for n in range(width)]


def rows(width: int, *, seed: int, count: int = 1000) -> list[dict[str, float]]:
    """Return what a training loop logs at each step, to be used round and round."""
    columns = [curve(count, seed=seed + n).tolist() for n in range(width)]
    return [dict(zip(keys(width), row, strict=True)) for row in zip(*columns, strict=True)]


def params(width: int, *, seed: int) -> dict[str, object]:
    """Return hyperparameters: numbers and texts."""
    random = np.random.default_rng(seed)
    numbers = random.uniform(size=width).tolist()
    return {
        f"param_{place}": number if place % 2 else f"choice-{int(number * 10)}"
        for place, number in enumerate(numbers)
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """Many runs of one program: what each is given, and what it reports.

    Attributes:
        runs: how many.
        params: of each run: numbers and texts, and `seed` beside them where there are seeds.
        metrics: of each run.
        points: of each metric.
        seeds: runs that share their other params.
        strange_keys: distinct keys that only few runs have, 0 for none; each run has
            `STRANGE` of them, both as params and as metrics.
    """

    runs: int
    params: int = 20
    metrics: int = 20
    points: int = 1
    seeds: int = 1
    strange_keys: int = 0

    @staticmethod
    def has_failed(number: int) -> bool:
        """Tell whether run `number` ended badly."""
        return number % _FAILS == _FAILS - 1

    def params_of(self, number: int) -> dict[str, object]:
        """Return the params of run `number`."""
        made = params(self.params, seed=number // self.seeds)
        if self.seeds > 1:
            made["seed"] = number % self.seeds
        return made | {f"strange/{key}": key / 7 for key in self._strange(number)}

    def metrics_of(self, number: int) -> list[str]:
        """Return the keys of the metrics of run `number`."""
        return keys(self.metrics) + [f"strange/{key}" for key in self._strange(number)]

    def values_of(self, number: int, *, points: int | None = None) -> NDArray[np.float64]:
        """Return what run `number` reports; every value is a float32's.

        Args:
            number: of the run.
            points: of each metric, if other than the sweep's.

        Returns:
            shape (points, metrics).
        """
        count = self.points if points is None else points
        width = len(self.metrics_of(number))
        # How good a run becomes hangs on its params; seeds of one config lie close together.
        config = np.random.default_rng([number // self.seeds, 1])
        random = np.random.default_rng([number, 2])
        depth = config.uniform(1, 6, width)
        time = np.linspace(1 / count, 1, count)[:, None]
        noise = 1 + 0.03 * random.standard_normal((count, width))
        found: NDArray[np.float64] = ((np.exp(-time * depth) + 0.02) * noise).astype(np.float32)
        return found.astype(np.float64)

    def _strange(self, number: int) -> list[int]:
        """Return which strange keys run `number` has."""
        if not self.strange_keys:
            return []
        first = int(np.random.default_rng([number, 3]).integers(self.strange_keys))
        return sorted({(first + place) % self.strange_keys for place in range(STRANGE)})
