"""A short look at each of very many files: one by one, or by threads where storage is slow to answer."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from emim.errors import Cancelled

FIRST = 100
AT_ONCE = 500
SLOW = 200e-6  # seconds a look; a local disk takes some 3 to 50 microseconds
THREADS = 16  # they wait, and need no processor

Found = TypeVar("Found")


def look_at_each(
    look: Callable[[str], Found], paths: Sequence[str], should_stop: Callable[[], bool] | None = None
) -> list[Found]:
    """``look(path)`` for each path, in order.

    On a local disk a look is work, and threads would only wait for Python's lock (1.7 times as long). On
    network storage it is waiting, which threads share. The first looks tell which it is.

    Args:
        should_stop: asked before every few hundred looks.

    Raises:
        Cancelled: when ``should_stop`` said so.
        Exception: what a look raises.
    """

    def some(part: Sequence[str]) -> list[Found]:
        if should_stop is not None and should_stop():
            raise Cancelled("Stopped while looking at the files.")
        return [look(path) for path in part]

    found, seconds = [], []
    for path in paths[:FIRST]:
        begun = time.perf_counter()
        found += some([path])
        seconds.append(time.perf_counter() - begun)
    parts = [paths[i : i + AT_ONCE] for i in range(FIRST, len(paths), AT_ONCE)]
    if not parts or statistics.median(seconds) < SLOW:
        return [*found, *chain.from_iterable(map(some, parts))]
    with ThreadPoolExecutor(THREADS) as pool:
        return [*found, *chain.from_iterable(pool.map(some, parts))]
