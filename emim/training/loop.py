"""The training loop that pre-training and fine-tuning share.

Every random choice of a step is made by the data set from (seed, step), so the loop keeps no
generator state: after an interruption, model, optimiser and step number are enough to go on bit by
bit as if nothing had happened.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

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


def train(
    run: RunFolder,
    model: nn.Module,
    data: Dataset,
    config: TrainConfig,
    device: torch.device,
    compute_loss: Callable[[dict[str, torch.Tensor], int], tuple[torch.Tensor, dict[str, Any]]],
    validate: Callable[[int], float | None],
    rates: Mapping[str, float] | None = None,
) -> None:
    """Train ``model`` in place until ``config.steps``, from the last checkpoint if there is one.

    Args:
        run: where checkpoints and events go.
        model: on ``device``.
        data: item t is the batch of step t.
        compute_loss: maps (batch, step) to the loss and values to log.
        validate: called with the number of steps done; returns a score, the higher the better, for
            which ``best.pt`` is kept, or None.
        rates: see :func:`make_optimiser`.

    Raises:
        Cancelled: on SIGINT, SIGTERM or a cancel file, after a checkpoint.
        EmimError: when the loss is no longer a finite number.
    """
    optimiser = make_optimiser(model, config, rates or {})
    precision = _mixed_precision(device)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == torch.float16)
    start, best, validated = 0, -math.inf, -1
    checkpoint = run.load_checkpoint("last.pt")
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimiser.load_state_dict(checkpoint["optimiser"])
        if checkpoint["scaler"] and scaler.is_enabled():
            scaler.load_state_dict(checkpoint["scaler"])
        start, best, validated = checkpoint["step"], checkpoint["best"], checkpoint["validated"]
        run.events.status(f"Resuming at step {start} of {config.steps}.")

    def save(step: int) -> None:
        run.save_checkpoint(
            "last.pt",
            {
                "step": step,
                "best": best,
                "validated": validated,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "scaler": scaler.state_dict(),
            },
        )

    def check(step: int) -> None:
        nonlocal best, validated
        if step == validated:
            return
        model.eval()
        with torch.inference_mode():
            score = validate(step)
        model.train()
        validated = step
        if score is not None and score > best:
            best = score
            run.save_checkpoint("best.pt", {"step": step, "score": score, "model": model.state_dict()})

    def diverged(step: int) -> EmimError:
        return EmimError(
            f"Loss or gradient are no longer numbers at step {step}.",
            run.path,
            "Start anew with a lower train.learning_rate. The last checkpoint is still good.",
        )

    every = config.validate_every or max(1, math.ceil(config.steps / 20))
    log_every = max(1, config.steps // 500)
    loader = DataLoader(
        data,
        batch_size=None,
        sampler=range(start, config.steps),
        num_workers=_workers(config, device),
        pin_memory=device.type == "cuda",
        worker_init_fn=_ignore_signals,
    )
    with _stop_signals() as stop:

        def stop_if_asked(step: int) -> None:
            if stop.is_set() or run.cancel_requested():
                save(step)
                raise Cancelled(f"Stopped at step {step} of {config.steps}.")

        model.train()
        stop_if_asked(start)
        if start == 0:
            check(0)
        saved = time.monotonic()
        for step, batch in enumerate(loader, start):
            rate = learning_rate_at(step, config)
            for group in optimiser.param_groups:
                group["lr"] = rate * group["scale"]
            batch = {k: v.to(device, non_blocking=True) for k, v in batch.items()}
            with torch.autocast(device.type, precision, enabled=precision is not None):
                loss, values = compute_loss(batch, step)
            if not torch.isfinite(loss):
                raise diverged(step)
            optimiser.zero_grad(set_to_none=True)
            scaler.scale(loss).backward()
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(model.parameters(), config.grad_clip)
            if not scaler.is_enabled() and not torch.isfinite(norm):  # the scaler skips such steps
                raise diverged(step)
            scaler.step(optimiser)
            scaler.update()
            done, value = step + 1, loss.item()
            if done % log_every == 0 or done == config.steps:
                run.events.metric(
                    done,
                    "train",
                    loss=value,
                    **{k: float(v) for k, v in values.items()},
                    learning_rate=rate,
                    grad_norm=float(norm),
                )
            run.events.progress(done, config.steps, text=f"loss {value:.3f}")
            if done % every == 0 or done == config.steps:
                check(done)
            if (
                done % every == 0
                or done == config.steps
                or time.monotonic() - saved > config.checkpoint_every
            ):
                save(done)
                saved = time.monotonic()
            if done < config.steps:
                stop_if_asked(done)


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


@contextmanager
def _stop_signals():
    """Turn SIGINT and SIGTERM into a flag; a second one acts as usual."""
    flag = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)}

    def ask(number, frame):
        flag.set()
        signal.signal(number, before[number])

    for s in before:
        signal.signal(s, ask)
    try:
        yield flag
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)
