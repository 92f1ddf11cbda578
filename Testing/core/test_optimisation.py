"""One step of training after the other: rates, checkpoints of any origin, what a GPU cannot hold."""

import copy

import pytest
import torch

from emim.config import TrainConfig
from emim.errors import EmimError
from emim.training.optimisation import Optimisation, learning_rate_at, share_after_head_start


def test_learning_rate_warms_up_and_decays():
    config = TrainConfig(steps=100, warmup=0.1, learning_rate=2.0)
    rates = [learning_rate_at(s, config) for s in range(100)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == 2.0 and rates[10] == 2.0
    assert all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False)) and rates[-1] < 0.01


def test_transferred_weights_wait_for_new_ones_and_warm_up():
    config = TrainConfig(steps=20, batch=2, warmup=0.1, learning_rate=0.1)
    assert [share_after_head_start(step, 10, config) for step in (0, 9, 10, 11, 19)] == [0, 0, 0.5, 1, 1]
    assert share_after_head_start(0, 0, config) == 1

    def steps_of_change(named: dict[str, float]) -> dict[str, list[int]]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 1))
        optimisation = Optimisation(
            model, config, torch.device("cpu"), lambda m, b, _: (m(b["x"]).square().mean(), {}), named, 0.5
        )
        changed = {name: [] for name, _ in model.named_parameters()}
        for step in range(config.steps):
            before = copy.deepcopy(model.state_dict())
            optimisation.advance({"x": torch.randn(2, 3)}, step)
            for name, value in model.state_dict().items():
                if not torch.equal(value, before[name]):
                    changed[name].append(step)
        return changed

    every = list(range(config.steps))
    first = {"0.weight": 1.0, "0.bias": 1.0}
    assert steps_of_change(first) == {
        "0.weight": every[10:], "0.bias": every[10:], "1.weight": every, "1.bias": every
    }  # fmt: skip
    # Where nothing is new, as when a model goes on with the same structures, nobody would learn meanwhile.
    assert set(map(tuple, steps_of_change({**first, "1.weight": 1.0, "1.bias": 1.0}).values())) == {
        tuple(every)
    }
    assert set(map(tuple, steps_of_change({}).values())) == {tuple(every)}


def test_a_checkpoint_with_other_groups_of_weights_is_refused_in_words():
    config, device = TrainConfig(steps=2, batch=2), torch.device("cpu")

    def new(rates):
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        return Optimisation(model, config, device, lambda m, b, _: (m(b["x"]).mean(), {}), rates)

    with pytest.raises(EmimError, match="do not fit"):
        new({}).restore(new({"0.weight": 0.5}).state())


def test_a_checkpoint_of_another_kind_of_processor_keeps_its_steps_where_this_one_needs_them(monkeypatch):
    model, config = torch.nn.Linear(2, 1), TrainConfig(steps=2, batch=2)
    training = Optimisation(model, config, torch.device("cpu"), lambda m, b, _: (m(b["x"]).mean(), {}))
    training.advance({"x": torch.ones(2, 2)}, 0)
    state = copy.deepcopy(training.state())
    for group in state["optimiser"]["param_groups"]:
        group["fused"] = None  # as on Apple's GPUs
    loaded, load = [], training.optimiser.load_state_dict
    monkeypatch.setattr(training.optimiser, "load_state_dict", lambda s: (loaded.append(s), load(s)))
    training.restore(state)
    assert all(group["fused"] for group in loaded[0]["param_groups"]), "AdamW asks while it loads"
    assert all(group["fused"] for group in training.optimiser.param_groups)
    assert not any(group["fused"] for group in state["optimiser"]["param_groups"])


def test_batches_are_waited_for_but_on_their_way_to_nvidias_gpus(monkeypatch):
    asked, to = [], torch.Tensor.to
    monkeypatch.setattr(
        torch.Tensor, "to", lambda self, *a, **k: (asked.append(k.get("non_blocking")), to(self, *a, **k))[1]
    )
    config = TrainConfig(steps=2, batch=2)
    training = Optimisation(
        torch.nn.Linear(2, 1), config, torch.device("cpu"), lambda m, b, _: (m(b["x"]).mean(), {})
    )
    training.advance({"x": torch.ones(2, 2)}, 0)
    assert asked and not any(asked)


@pytest.mark.parametrize(
    "error", [torch.cuda.OutOfMemoryError("CUDA"), RuntimeError("MPS backend out of memory (…)")]
)
def test_a_step_that_a_gpu_cannot_hold_says_what_to_do(error):
    def compute_loss(model, batch, step):
        raise error

    config = TrainConfig(steps=2, batch=2)
    training = Optimisation(torch.nn.Linear(2, 1), config, torch.device("cpu"), compute_loss)
    with pytest.raises(EmimError, match="does not suffice for a training step"):
        training.advance({"x": torch.ones(2, 2)}, 0)


def test_a_checkpoint_from_before_there_was_a_head_start_goes_on():
    config = TrainConfig(steps=4, batch=2)
    batch = {"x": torch.ones(2, 2)}

    def new():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        return Optimisation(
            model, config, torch.device("cpu"), lambda m, b, _: (m(b["x"]).mean(), {}), {"0.weight": 1.0}
        )

    whole, resumed = new(), new()
    whole.advance(batch, 0)
    state = copy.deepcopy(whole.state())
    assert len(state["optimiser"]["param_groups"]) == 2  # as without names: decaying and not
    for group in state["optimiser"]["param_groups"]:
        del group["follows"]
    resumed.restore(state)
    for training in (whole, resumed):
        training.advance(batch, 1)
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_goes_on_with_another_order_of_axes():
    """As one from a GPU does on a CPU: the update goes through weights, gradients and moments as they lie."""
    config = TrainConfig(steps=4, batch=2)
    batch = {"x": torch.randn(2, 3, 6, 6, 6)}

    def new(order):
        torch.manual_seed(0)
        model = torch.nn.Conv3d(3, 5, 3).to(memory_format=order)
        compute_loss = lambda m, b, _: (m(b["x"]).square().mean(), {})  # noqa: E731
        return Optimisation(model, config, torch.device("cpu"), compute_loss)

    plain, last = new(torch.contiguous_format), new(torch.channels_last_3d)
    plain.advance(batch, 0)
    last.restore(copy.deepcopy(plain.state()))
    for step in (1, 2):
        for training in (plain, last):
            training.advance(batch, step)
    assert last.model.weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(last.model.weight, plain.model.weight, rtol=1e-4, atol=1e-6)
