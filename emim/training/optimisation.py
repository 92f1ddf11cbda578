"""One step of training after the other: learning rate, gradients, AdamW; on one processor or on many.

A step trains on ``train.batch`` samples, whatever the number of ranks: each takes an equal share, and the
result is that of one process with the whole batch. Where the share does not fit into memory it goes through
the network in micro-batches, whose gradients add up.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from emim.config import TrainConfig
from emim.errors import EmimError
from emim.events import Events
from emim.machine.device import mixed_precision
from emim.machine.distributed import gather, on_every_rank, size
from emim.machine.memory import is_out_of_memory
from emim.machine.reduce import sum_over_ranks

Batch = dict[str, torch.Tensor]
Values = dict[str, Any]


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up to ``config.learning_rate`` over the first share of the steps, then cosine to zero."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def share_after_head_start(step: int, head_start: int, config: TrainConfig) -> float:
    """The share of their learning rate at which weights learn that wait for ``head_start`` steps.

    They have a linear warm-up of their own then: the "sawtooth" schedule of arXiv 2412.17041.
    """
    warmup = max(1, round(config.warmup * config.steps))
    return min(1.0, max(0.0, (step - head_start + 1) / warmup)) if head_start else 1.0


def make_optimiser(
    model: nn.Module,
    config: TrainConfig,
    rates: Mapping[str, float],
    fused: bool = False,
    head_start: bool = False,
) -> torch.optim.AdamW:
    """AdamW; what has fewer than two dimensions (tokens, biases, normalisation scales) does not decay.

    Args:
        rates: learning rate of named parameters as a share of the run's; 1 where not named.
        fused: update all parameters in one go.
        head_start: named ones wait for the others, where there are any.
    """
    wait = head_start and any(name not in rates for name, _ in model.named_parameters())
    groups: dict[tuple[bool, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        kind = (parameter.ndim >= 2, rates.get(name, 1.0), wait and name in rates)
        groups.setdefault(kind, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": p,
                "weight_decay": config.weight_decay if decays else 0.0,
                "scale": scale,
                "follows": follows,
            }
            for (decays, scale, follows), p in groups.items()
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
        fused=fused or None,
    )


class Optimisation:
    """Model and optimiser, moved one step at a time.

    Args:
        model: on ``device``.
        compute_loss: maps (model, batch, step) to the loss of the batch of all ranks and values to log; the
            model it gets is the one to call.
        rates: see :func:`make_optimiser`.
        head_start: share of all steps for which the weights named in ``rates`` wait for the others.
        weigh: how much the loss of a batch counts among those of other micro-batches; None: its samples.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        device: torch.device,
        compute_loss: Callable[[nn.Module, Batch, int], tuple[torch.Tensor, Values]],
        rates: Mapping[str, float] | None = None,
        head_start: float = 0.0,
        weigh: Callable[[Batch], torch.Tensor] | None = None,
    ) -> None:
        self.model, self.config, self.device = model, config, device
        self.compute_loss, self.weigh = compute_loss, weigh
        self.micro_batch = config.micro_batch or config.batch // size()
        self.head_start = round(head_start * config.steps)
        self._parallel = _parallel(model)
        self._fused = device.type in ("cpu", "cuda")
        self.optimiser = make_optimiser(model, config, rates or {}, self._fused, self.head_start > 0)
        self._precision = mixed_precision(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision == torch.float16)
        self._diverged = torch.full((), math.inf, device=device)  # the first step that was not finite

    def advance(self, batch: Batch, step: int) -> Values:
        """Train on this rank's share of a batch; return the values to log, which may still be computed.

        Raises:
            EmimError: when the loss is no longer a finite number (on a GPU only :meth:`check` finds out),
                or the GPU's memory does not suffice.
        """
        rate = learning_rate_at(step, self.config)
        following = share_after_head_start(step, self.head_start, self.config)
        for group in self.optimiser.param_groups:  # those of an earlier version's checkpoint follow nobody
            group["lr"] = rate * group["scale"] * (following if group.get("follows") else 1.0)
        self.optimiser.zero_grad(set_to_none=True)
        try:
            loss, values = self._accumulate(self._parallel, batch, step)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory("a training step") from error
        self._scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        finite = torch.isfinite(loss)
        if not self._scaler.is_enabled():  # the scaler skips steps whose gradients are not finite
            finite = finite & torch.isfinite(norm)
        self._diverged = torch.where(finite, self._diverged, self._diverged.clamp(max=step))
        if self.device.type != "cuda":
            self.check()
        self._scaler.step(self.optimiser)
        self._scaler.update()
        return {"loss": loss, **values, "learning_rate": rate, "grad_norm": norm}

    def check(self) -> None:
        """Refuse to go on from weights that are no longer numbers.

        Raises:
            EmimError: naming the step at which loss or gradient were not finite.
        """
        step = self._diverged.item()
        if step < math.inf:
            raise EmimError(
                f"Loss or gradient are no longer numbers at step {int(step)}.",
                hint="Start anew with a lower train.learning_rate. The last checkpoint is still good.",
            )

    def fit(self, batch: Batch, step: int, events: Events) -> None:
        """Where a GPU cannot hold what ``train.micro_batch`` leaves open, halve the micro-batch until it can.

        Tries the arithmetic of a step on this rank's share of a batch; no weight changes. All ranks choose
        the same.

        Raises:
            EmimError: when not even one sample fits.
        """
        if not has_own_memory(self.device) or self.config.micro_batch is not None:
            return
        wanted = self.micro_batch
        self.micro_batch = min(gather(on_every_rank(lambda: self._largest_that_fits(batch, step))))
        if self.micro_batch < wanted:
            events.warning(
                f"The memory of the GPU holds {self.micro_batch} of {wanted} samples at once: gradients are "
                "accumulated.",
                "train.micro_batch",
                "The reconstruction loss stays exact; Dice and what compares samples with each other, such "
                "as the Barlow term, are computed within each part.",
            )

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on bit by bit; the same for any number of ranks."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state`.

        Raises:
            EmimError: when it is of another network.
        """
        load_weights(self.model, state["model"])
        # The checkpoint may be from another kind of processor; where AdamW keeps its steps depends on this.
        groups = [{**group, "fused": self._fused or None} for group in state["optimiser"]["param_groups"]]
        try:
            self.optimiser.load_state_dict({**state["optimiser"], "param_groups": groups})
        except ValueError as error:  # other groups of weights
            raise of_another_version() from error
        for parameter, moments in self.optimiser.state.items():  # which the update reads side by side
            for name, value in moments.items():
                if value.shape == parameter.shape and value.stride() != parameter.stride():
                    moments[name] = torch.empty_like(parameter).copy_(value)
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])

    def _accumulate(self, model: nn.Module, batch: Batch, step: int) -> tuple[torch.Tensor, Values]:
        """Add up the gradients of the micro-batches; return the mean of their losses and values."""
        # Apple's GPUs may read a batch after its memory has gone to the next (PyTorch issue 189690).
        batch = {k: v.to(self.device, non_blocking=self.device.type == "cuda") for k, v in batch.items()}
        parts = _split(batch, self.micro_batch)
        weights = self._weights(parts)
        losses, logged = [], []
        for part, weight in zip(parts, weights, strict=True):
            waiting = len(losses) < len(parts) - 1 and model is not self.model
            with model.no_sync() if waiting else contextlib.nullcontext():
                with torch.autocast(self.device.type, self._precision, enabled=self._precision is not None):
                    loss, values = self.compute_loss(model, part, step)
                loss = loss if len(parts) == 1 else loss * weight
                self._scaler.scale(loss).backward()
            losses.append(loss.detach())
            logged.append({k: v if len(parts) == 1 else v * weight for k, v in values.items()})
        return sum(losses), {k: sum(values[k] for values in logged) for k in logged[0]}

    def _weights(self, parts: list[Batch]) -> list[torch.Tensor] | list[float]:
        """The share of each micro-batch, with those of the other ranks, in the loss of the batch."""
        if len(parts) == 1:
            return [1.0]
        if self.weigh is None:
            counts = torch.tensor([float(len(next(iter(p.values())))) for p in parts], device=self.device)
        else:
            counts = sum_over_ranks(torch.stack([self.weigh(p) for p in parts])).float()
        return list(counts / counts.sum().clamp(min=1))

    def _largest_that_fits(self, batch: Batch, step: int) -> int:
        while True:
            try:
                self._try({k: v[: self.micro_batch] for k, v in batch.items()}, step)
                return self.micro_batch
            except torch.cuda.OutOfMemoryError as error:
                if self.micro_batch == 1:
                    raise out_of_memory("a training step") from error
                self.micro_batch = math.ceil(self.micro_batch / 2)
            finally:
                self.optimiser.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()

    def _try(self, batch: Batch, step: int) -> None:
        # Room for the two moments of AdamW and the gradients on their way to other ranks.
        reserve = [torch.empty_like(p) for p in self.model.parameters() for _ in range(3)]
        self._accumulate(self.model, batch, step)
        del reserve


def load_weights(model: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Load all weights of a checkpoint.

    Raises:
        EmimError: when they are of another network.
    """
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise of_another_version() from error


def of_another_version() -> EmimError:
    return EmimError(
        "The weights of the run do not fit the network that its settings describe.",
        hint="It was begun by another version of EMIM. Train anew.",
    )


def has_own_memory(device: torch.device) -> bool:
    """Whether a step that does not fit fails at once, instead of slowing down or ending the process."""
    return device.type == "cuda"


def _parallel(model: nn.Module) -> nn.Module:
    """The model to call: its gradients, and at first its weights, are shared by all ranks."""
    if size() == 1:
        return model
    return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)


def _split(batch: Batch, most: int) -> list[Batch]:
    parts = {k: v.split(most) for k, v in batch.items()}
    return [dict(zip(parts, part, strict=True)) for part in zip(*parts.values(), strict=True)]


def out_of_memory(what: str) -> EmimError:
    return EmimError(
        f"The memory of the GPU does not suffice for {what}.",
        hint="Choose a smaller preset, train.micro_batch or train.crop, or the device cpu.",
    )
