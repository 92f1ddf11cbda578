"""Gauges of dimensional collapse on the feature pyramid of a few fixed crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from emim.objectives.gauges import effective_rank, mean_correlation, rank_ratio, uniformity
from emim.volumes.cache import CachedCase

GAUGE_SUBJECTS = 8


def one_of_each_subject(validation: Sequence[CachedCase], training: Sequence[CachedCase]) -> list[CachedCase]:
    """A case of each of a few subjects: gauges need several, so training fills up what validation lacks."""
    one_each = {c.subject: c for c in reversed([*validation, *training])}
    return list(reversed(one_each.values()))[:GAUGE_SUBJECTS]


def feature_gauges(levels: Sequence[Sequence[torch.Tensor]]) -> dict[str, Any]:
    """``effective_rank``, ``rank_ratio``, ``uniformity`` and ``correlation``, a list over the levels each.

    Args:
        levels: for each level the rows (n, C) of each batch, see :func:`foreground_rows`.
    """
    features = [_some_rows(torch.cat(list(rows))) for rows in levels]
    ranks = [effective_rank(f) if len(f) > 2 else None for f in features]
    return {
        "effective_rank": ranks,
        "rank_ratio": [
            None if r is None else rank_ratio(r, f.shape) for r, f in zip(ranks, features, strict=True)
        ],
        "uniformity": [uniformity(f) if len(f) > 2 else None for f in features],
        "correlation": [mean_correlation(f) if len(f) > 2 else None for f in features],
    }


def foreground_rows(features: torch.Tensor, foreground: torch.Tensor) -> torch.Tensor:
    """Feature vectors (n, C) at the level's foreground positions of (B, C, z, y, x)."""
    share = F.adaptive_avg_pool3d(foreground.float(), features.shape[-3:])[:, 0]
    return _some_rows(features.movedim(1, -1)[(share > 0) & (share >= share.max() / 2)])


def _some_rows(rows: torch.Tensor, most: int = 4096) -> torch.Tensor:
    return rows[torch.linspace(0, len(rows) - 1, min(most, len(rows))).long()] if len(rows) else rows
