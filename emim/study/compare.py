"""Paired differences between two arms, and words that claim no more than they carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

LEAST_FOR_INTERVAL = 5  # values; the percentiles of fewer say nothing


@dataclass(frozen=True)
class Difference:
    """Value minus control, pair by pair.

    Attributes:
        values: seed (or case) to difference.
        interval: 95 % bootstrap interval of the mean, or None for fewer than five pairs.
    """

    values: dict[object, float]
    interval: tuple[float, float] | None

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values.values())

    @property
    def sd(self) -> float | None:
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def sign(self) -> int:
        """1 or -1 where all pairs agree, else 0."""
        signs = {(v > 0) - (v < 0) for v in self.values.values()}
        return signs.pop() if len(signs) == 1 else 0


def difference(values: Mapping, control: Mapping) -> Difference | None:
    """Over the keys that both have; None when there are none."""
    pairs = {k: values[k] - control[k] for k in values if k in control}
    if not pairs:
        return None
    return Difference(pairs, bootstrap_interval(list(pairs.values())))


def bootstrap_interval(values: Sequence[float], draws: int = 10_000) -> tuple[float, float] | None:
    """Percentile interval (95 %) of the mean under resampling (Efron 1979); None for fewer than five."""
    if len(values) < LEAST_FOR_INTERVAL:
        return None
    array = np.asarray(values, float)
    index = np.random.default_rng(0).integers(len(array), size=(draws, len(array)))
    low, high = np.percentile(array[index].mean(1), (2.5, 97.5))
    return float(low), float(high)


def spread(values: Sequence[float | None], digits: int = 3) -> str:
    """Mean ± standard deviation of the values that are known."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    if not known:
        return "-"
    mean = f"{statistics.fmean(known):.{digits}f}"
    return f"{mean} ± {statistics.stdev(known):.{digits}f}" if len(known) > 1 else mean


def in_words(found: Difference, planned: int, higher: str = "higher", lower: str = "lower") -> str:
    """What a difference over seeds shows, and how sure that is.

    Args:
        planned: number of seeds there are to be.
        higher, lower: words for a positive and a negative difference.
    """
    each = ", ".join(f"{v:+.3f}" for v in found.values.values())
    sd = "" if found.sd is None else f" ± {found.sd:.3f}"
    count = len(found.values)
    text = f"{found.mean:+.3f}{sd} ({each})"
    if count < planned:
        text += f", {count} of {planned} seeds so far"
    if count == 1:
        return f"{text}: one seed, which shows nothing by itself."
    if found.sign == 0:
        return f"{text}: not the same sign in every seed, so no difference is shown."
    chance = 2 ** (count - 1)  # of the other seeds agreeing with the first
    word = higher if found.sign > 0 else lower
    text += f": {word} in all {count} seeds, as by chance alone in 1 of {chance}"
    if found.interval is not None:
        text += "; 95 % interval {:+.3f} to {:+.3f}".format(*found.interval)
    return text + "."
