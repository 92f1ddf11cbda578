"""The examples in CONTRIBUTING.md work."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from emim.config import MaskConfig
from emim.masking import patterns
from emim.objectives import regulariser
from emim.training.pretrain import pretrain

GUIDE = Path(__file__).resolve().parents[2] / "CONTRIBUTING.md"


@pytest.fixture
def examples(monkeypatch):
    """What the code blocks define, under the names that the text gives them."""
    text = GUIDE.read_text(encoding="utf-8")
    section = text.split("## Adding a mask pattern or a regulariser")[1].split("\n## ")[0]
    defined = {"Penalty": regulariser.Penalty}
    for block in re.findall(r"```python\n(.*?)```", section, re.DOTALL):
        exec(compile(block, GUIDE.name, "exec"), defined)
    named = dict(re.findall(r'`"(\w+)": ([^`]+)`', section))
    assert set(named) == {"one_visible", "decorrelation"}
    monkeypatch.setitem(patterns.PATTERNS, "one_visible", eval(named["one_visible"], defined))
    monkeypatch.setitem(regulariser.PENALTIES, "decorrelation", eval(named["decorrelation"], defined))
    return defined


def test_the_mask_pattern_does_what_it_says(examples):
    present = np.array([True, False, True, True])
    kinds = patterns.draw_mask(MaskConfig("one_visible"), present, 50, np.random.default_rng(0))
    assert (kinds[1] == patterns.VISIBLE).all()
    assert ((kinds[present] == patterns.VISIBLE).sum(0) == 1).all()


def test_the_regulariser_does_what_it_says(examples):
    torch.manual_seed(0)
    x = torch.randn(4000, 1)
    alike, apart = torch.cat([x, 2 * x, -x], 1), torch.randn(4000, 3)
    loss, weight = examples["decorrelation_loss"], torch.ones(4000)
    assert loss(alike, weight) == pytest.approx(1, abs=1e-3) and loss(apart, weight) < 0.01
    weight[2000:] = 0
    changed = apart.clone()
    changed[2000:] = 9
    assert loss(changed, weight) == pytest.approx(float(loss(apart[:2000], weight[:2000])), rel=1e-4)


def test_a_run_can_be_trained_with_both(examples, phantoms, cache, tmp_path, small_pretrain):
    settings = {"mask__pattern": "one_visible", "regulariser__name": "decorrelation", "train__steps": 2}
    run = pretrain(phantoms, tmp_path / "run", small_pretrain(**settings), cache=cache)
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    step = next(e for e in events if e["type"] == "metric" and e["split"] == "train")
    assert step["mask_ratio"] == pytest.approx(0.75) and step["regulariser"] > 0
