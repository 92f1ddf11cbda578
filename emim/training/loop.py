"""The training loop that pre-training and fine-tuning share.

Every random choice of a step is made by the data set from (seed, step), so the loop keeps no
generator state: after an interruption, model, optimiser and step number are enough to go on bit by
bit as if nothing had happened.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from emim import stopping
from emim.config import TrainConfig
from emim.errors import Cancelled, EmimError
from emim.run import RunFolder


def learning_rate_at(step: int, config: TrainConfig) -> float:
    """Linear warm-up to ``config.learning_rate`` over the first share of the steps, then cosine to zero."""
    warmup = max(1, round(config.warmup * config.steps))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, config.steps - warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimiser(model: nn.Module, config: TrainConfig, rates: Mapping[str, float]) -> torch.optim.AdamW:
    """AdamW; tokens, biases and normalisation scales (fewer than two dimensions) do not decay.

    Args:
        rates: learning rate of named parameters as a share of the run's; 1 where not named.
    """
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault((parameter.ndim >= 2, rates.get(name, 1.0)), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": p, "weight_decay": config.weight_decay if decays else 0.0, "scale": scale}
            for (decays, scale), p in groups.items()
        ],
        lr=config.learning_rate,
        betas=(0.9, 0.95),
    )


class Optimisation:
    """Model and optimiser, moved one step at a time.

    Args:
        model: on ``device``.
        compute_loss: maps (batch, step) to the loss and values to log.
        rates: see :func:`make_optimiser`.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        device: torch.device,
        compute_loss: Callable[[dict[str, torch.Tensor], int], tuple[torch.Tensor, dict[str, Any]]],
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.model, self.config, self.device, self.compute_loss = model, config, device, compute_loss
        self.optimiser = make_optimiser(model, config, rates or {})
        self._precision = _mixed_precision(device)
        self._scaler = torch.amp.GradScaler(device.type, enabled=self._precision == torch.float16)

    def advance(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, float]:
        """Train on one batch; return the values to log.

        Raises:
            EmimError: when the loss is no longer a finite number, or the GPU's memory does not suffice.
        """
        try:
            return self._advance(batch, step)
        except torch.cuda.OutOfMemoryError as error:
            raise EmimError(
                "The memory of the GPU does not suffice for a training step.",
                hint="Choose a smaller preset, train.batch or train.crop, or the device cpu.",
            ) from error

    def state(self) -> dict[str, Any]:
        """What a checkpoint needs to go on bit by bit."""
        return {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self._scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        if state["scaler"] and self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])

    def _advance(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, float]:
        rate = learning_rate_at(step, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        with torch.autocast(self.device.type, self._precision, enabled=self._precision is not None):
            loss, values = self.compute_loss(batch, step)
        if not torch.isfinite(loss):
            raise _diverged(step)
        self.optimiser.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.grad_clip)
        if not self._scaler.is_enabled() and not torch.isfinite(norm):  # the scaler skips such steps
            raise _diverged(step)
        self._scaler.step(self.optimiser)
        self._scaler.update()
        logged = {k: float(v) for k, v in values.items()}
        return {"loss": loss.item(), **logged, "learning_rate": rate, "grad_norm": float(norm)}


def train(
    run: RunFolder,
    optimisation: Optimisation,
    data: Dataset,
    validate: Callable[[int], float | None],
) -> None:
    """Train in place until the last step, from the last checkpoint if there is one.

    Args:
        run: where checkpoints and events go.
        data: item t is the batch of step t.
        validate: called with the number of steps done; returns a score, the higher the better, for
            which ``best.pt`` is kept, or None. It may raise Cancelled; a resumed run validates again.

    Raises:
        Cancelled: on SIGINT, SIGTERM or a cancel file, after a checkpoint.
        EmimError: see :meth:`Optimisation.advance`.
    """
    model, config = optimisation.model, optimisation.config
    start, best, validated = 0, -math.inf, -1
    checkpoint = run.load_checkpoint("last.pt")
    if checkpoint is not None:
        optimisation.restore(checkpoint)
        start, best, validated = checkpoint["step"], checkpoint["best"], checkpoint["validated"]
        run.events.status(f"Resuming at step {start} of {config.steps}.")

    def save(step: int) -> None:
        progress = {"step": step, "best": best, "validated": validated}
        run.save_checkpoint("last.pt", {**progress, **optimisation.state()})

    def stopped(step: int) -> Cancelled:
        save(step)
        return Cancelled(f"Stopped at step {step} of {config.steps}.")

    def check(step: int) -> None:
        nonlocal best, validated
        if step == validated:
            return
        model.eval()
        try:
            with torch.inference_mode():
                score = validate(step)
        except Cancelled:
            raise stopped(step) from None
        model.train()
        validated = step
        if score is not None and score > best:
            best = score
            run.save_checkpoint("best.pt", {"step": step, "score": score, "model": model.state_dict()})

    every = validation_interval(config)
    log_every = max(1, config.steps // 500)
    with stopping.deferred():
        if run.cancel_requested():
            raise stopped(start)
        model.train()
        if start % every == 0 or start == config.steps:
            check(start)
        saved = time.monotonic()
        for step, batch in enumerate(load(data, config, optimisation.device, start), start):
            values = optimisation.advance(batch, step)
            done = step + 1
            if done % log_every == 0 or done == config.steps:
                run.events.metric(done, "train", **values)
            run.events.progress(done, config.steps, text=f"loss {values['loss']:.3f}")
            if done % every == 0 or done == config.steps:
                check(done)
            if (
                done % every == 0
                or done == config.steps
                or time.monotonic() - saved > config.checkpoint_every
            ):
                save(done)
                saved = time.monotonic()
            if done < config.steps and run.cancel_requested():
                raise stopped(done)


def validation_interval(config: TrainConfig) -> int:
    """Steps between validations."""
    return config.validate_every or max(1, math.ceil(config.steps / 20))


def load(data: Dataset, config: TrainConfig, device: torch.device, start: int = 0) -> DataLoader:
    """The batches of ``data`` from step ``start`` on, loaded by as many processes as pay."""
    return DataLoader(
        data,
        batch_size=None,
        sampler=range(start, config.steps),
        num_workers=_workers(config, device),
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals,
    )


def _diverged(step: int) -> EmimError:
    return EmimError(
        f"Loss or gradient are no longer numbers at step {step}.",
        hint="Start anew with a lower train.learning_rate. The last checkpoint is still good.",
    )


def _ignore_signals(worker: int) -> None:
    """A signal to the whole process group must not end the loaders before the checkpoint is written."""
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, signal.SIG_IGN)


def _mixed_precision(device: torch.device) -> torch.dtype | None:
    if device.type != "cuda":
        return None
    # Before compute capability 8, bfloat16 is emulated and slow.
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def _workers(config: TrainConfig, device: torch.device) -> int:
    if config.workers is not None:
        return config.workers
    import os
    import sys

    # A crop is read in milliseconds: processes pay only where a GPU waits, and fork is cheap.
    return min(8, (os.cpu_count() or 2) // 2) if device.type == "cuda" and sys.platform == "linux" else 0
