"""Augmentation: what moves together, what stays as it was measured, and no trace left in MONAI."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from monai.data import get_track_meta

from emim.training import augmentation
from emim.training.augmentation import for_contrast, for_finetuning, for_pretraining


def test_the_target_is_untouched_by_intensity_augmentation():
    rng = np.random.default_rng(0)
    target = torch.randn(2, 16, 16, 16)
    sample = {
        "input": target,
        "target": target,
        "foreground": torch.rand(1, 16, 16, 16) > 0.5,
        "present": torch.ones(2, dtype=torch.bool),
    }
    changed = flipped = 0
    for _ in range(20):
        result = for_pretraining()(sample, rng)
        same = torch.equal(result["target"], target)
        mirrored = torch.equal(result["target"], target.flip(3))
        assert same or mirrored
        foreground = sample["foreground"].flip(3) if mirrored else sample["foreground"]
        assert torch.equal(result["foreground"], foreground), "moved together"
        changed += not torch.equal(result["input"], result["target"])
        flipped += mirrored
    assert changed > 5 and 0 < flipped < 20


def test_finetuning_augmentation_moves_image_and_label_together():
    rng = np.random.default_rng(0)
    ball = torch.zeros(1, 24, 24, 24)
    ball[:, 8:16, 10:18, 4:12] = 1
    for _ in range(20):
        result = for_finetuning()({"input": ball * 5, "label": ball > 0}, rng)
        assert result["label"].dtype == torch.bool
        inside = result["input"][result["label"]].mean()
        outside = result["input"][~result["label"]].mean()
        assert inside > 5 * abs(outside) and result["label"].sum() > 100


@pytest.mark.parametrize("make", [for_pretraining, for_contrast, for_finetuning])
def test_without_metadata_the_same_is_done_and_others_still_have_theirs(make, monkeypatch):
    augment = make()

    def crops():
        torch.manual_seed(0)
        sample = {key: (torch.randn(1, 12, 14, 16) > 0.5) for key in augment.keys}
        sample["input"] = torch.randn(2, 12, 14, 16).clamp(min=0)  # with air
        return [augment(sample, np.random.default_rng(seed)) for seed in range(12)]

    without = crops()
    assert get_track_meta(), "left as it was found"
    monkeypatch.setattr(augmentation, "set_track_meta", lambda track: None)
    for a, b in zip(without, crops(), strict=True):
        for key in augment.keys:
            assert type(a[key]) is torch.Tensor and torch.equal(a[key], b[key])
    assert not all(torch.equal(without[0]["input"], crop["input"]) for crop in without)


def test_threads_do_not_disturb_each_other():
    ball = torch.zeros(1, 16, 16, 16)
    ball[:, 4:12, 4:12, 4:12] = 1

    def crops(first):
        augment = for_finetuning()
        return [
            augment({"input": ball * 5, "label": ball > 0}, np.random.default_rng(first + i))
            for i in range(150)
        ]

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(crops, range(0, 600, 150)))
    assert get_track_meta()
    for a, b in zip(together[0], crops(0), strict=True):
        assert torch.equal(a["input"], b["input"])
