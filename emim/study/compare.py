"""Paired differences between two arms, and words that claim no more than they carry."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_FOR_INTERVAL = 3  # values


@dataclass(frozen=True)
class Difference:
    """Value minus control, pair by pair.

    Attributes:
        values: seed (or case) to difference.
        interval: 95 % interval of the mean, or None for fewer than three pairs.
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
    return Difference(pairs, mean_interval(list(pairs.values())))


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % interval of the mean by Student's t, which allows for few values; None for fewer than three.

    The percentiles of a bootstrap would be too narrow for so few.
    """
    n = len(values)
    if n < LEAST_FOR_INTERVAL:
        return None
    from scipy.special import stdtrit

    mean = statistics.fmean(values)
    half = float(stdtrit(n - 1, 0.975)) * statistics.stdev(values) / math.sqrt(n)
    return mean - half, mean + half


def interval_in_words(interval: tuple[float, float]) -> str:
    low, high = interval
    return f"95 % interval {low:+.3f} to {high:+.3f}" + (", which includes 0" if low <= 0 <= high else "")


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
        text += f"; {interval_in_words(found.interval)}"
    return text + "."
