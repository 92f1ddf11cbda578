"""The training loop that pre-training and fine-tuning share.

Every random choice of a step is made by the data set from (seed, step), so the loop keeps no
generator state: after an interruption, model, optimiser and step number are enough to go on bit by
bit as if nothing had happened.

In a distributed run every rank runs this loop on its share of each batch. The first rank alone validates and
writes; all stop at the same step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import closing

import torch

from emim import stopping
from emim.config import TrainConfig
from emim.errors import Cancelled
from emim.machine.distributed import on_any_rank, on_first_rank
from emim.machine.memory import is_out_of_memory
from emim.run import RunFolder
from emim.training.loading import load
from emim.training.optimisation import Optimisation, out_of_memory
from emim.training.sampling import Batches


def train(
    run: RunFolder,
    optimisation: Optimisation,
    data: Batches,
    validate: Callable[[int], float | None],
) -> None:
    """Train in place until the last step, from the last checkpoint if there is one.

    Args:
        run: where checkpoints and events go.
        data: item t is this rank's share of the batch of step t.
        validate: called on the first rank with the number of steps done; returns a score, the higher the
            better, for which ``best.pt`` is kept, or None. It may raise Cancelled; a resumed run validates
            again.

    Raises:
        Cancelled: on SIGINT, SIGTERM or a cancel file, after a checkpoint.
        EmimError: see :meth:`Optimisation.advance`.
    """
    model, config = optimisation.model, optimisation.config
    start, best, validated = 0, -math.inf, -1
    checkpoint = on_first_rank(lambda: run.load_checkpoint("last.pt"))
    if checkpoint is not None:
        optimisation.restore(checkpoint)
        start, best, validated = checkpoint["step"], checkpoint["best"], checkpoint["validated"]
        run.events.status(f"Resuming at step {start} of {config.steps}.")

    def save(step: int) -> None:
        optimisation.check()
        progress = {"step": step, "best": best, "validated": validated}
        run.save_checkpoint("last.pt", {**progress, **optimisation.state()})

    def stopped(step: int) -> Cancelled:
        save(step)
        return Cancelled(f"Stopped at step {step} of {config.steps}.")

    def check(step: int) -> None:
        nonlocal best, validated
        if step == validated:
            return
        optimisation.check()
        model.eval()
        try:
            with torch.inference_mode():
                score = on_first_rank(lambda: validate(step))
        except Cancelled:
            raise stopped(step) from None
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise out_of_memory("a validation") from error
        model.train()
        validated = step
        if score is not None and score > best:
            best = score
            run.save_checkpoint("best.pt", {"step": step, "score": score, "model": model.state_dict()})

    every = validation_interval(config)
    log_every = max(1, config.steps // 500)
    # Reading a value makes a GPU wait for all that was asked of it, and then idle.
    read_every = log_every if optimisation.device.type == "cuda" else 1
    batches = load(data, config, optimisation.device, start)
    with stopping.deferred(), closing(batches):
        if on_any_rank(run.cancel_requested()):
            raise stopped(start)
        model.train()
        if start % every == 0 or start == config.steps:
            check(start)
        saved = time.monotonic()
        text = ""
        for step, batch in enumerate(batches, start):
            if step == start:
                optimisation.fit(batch, step, run.events)
            values = optimisation.advance(batch, step)
            done = step + 1
            if done % read_every == 0 or done == config.steps:
                optimisation.check()
                values = {k: float(v) for k, v in values.items()}
                text = f"loss {values['loss']:.3f}"
            if done % log_every == 0 or done == config.steps:
                run.events.metric(done, "train", **values)
            run.events.progress(done, config.steps, text=text)
            if done % every == 0 or done == config.steps:
                check(done)
            if (
                done % every == 0
                or done == config.steps
                or time.monotonic() - saved > config.checkpoint_every
            ):
                save(done)
                saved = time.monotonic()
            if done < config.steps and on_any_rank(run.cancel_requested()):
                raise stopped(done)


def validation_interval(config: TrainConfig) -> int:
    """Steps between validations."""
    return config.validate_every or max(1, math.ceil(config.steps / 20))
