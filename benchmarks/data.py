"""What the benchmarks log: made from seeds, so that every tracker gets the same.

Two kinds of numbers, because they differ in how small they can become: losses as training
makes them, computed in float32 (29 of the 52 bits of the fraction are zero), and true float64
noise, which nothing can make smaller than about 7.5 bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


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
    made: dict[str, object] = {}
    for number in range(width):
        value = float(random.uniform()) if number % 2 else f"choice-{random.integers(10)}"
        made[f"param_{number}"] = value
    return made
