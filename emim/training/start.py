"""How a run begins, anew or resumed, up to its prepared cases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from emim.cohort.case import Cohort
from emim.cohort.scan import Scan
from emim.errors import EmimError
from emim.run import RunFolder, write_json
from emim.training.split import Split, recorded_split

if TYPE_CHECKING:
    from emim.volumes.cache import CachedCase


def record_cohort(run: RunFolder, found: Scan, split: Split) -> None:
    """Write what a new run begins with, for when it is resumed."""
    write_json(run.path / "cohort.json", found.to_dict())
    write_json(run.path / "split.json", split.to_dict())


def resume_cohort(run: RunFolder, found: Scan, device: str) -> tuple[Cohort, Split]:
    """Cases and split that a run began with; they must not change. It goes on on ``device``.

    Raises:
        EmimError: when a case is no longer there.
    """
    if device != "auto":
        train = dataclasses.replace(run.config.train, device=device)
        run.config = dataclasses.replace(run.config, train=train)
    split = recorded_split(run.path)
    known = {c.id for c in found.cohort.cases}
    if missing := [i for i in (*split.training, *split.validation) if i not in known]:
        raise EmimError(
            f"The run began with cases that the cohort lacks now: {', '.join(missing[:5])}.",
            found.source,
            "Give no cohort to use the run's own, and see that its files are where they were.",
        )
    cohort = found.cohort.with_modalities(run.config.modalities or found.cohort.modalities)
    return cohort.select([*split.training, *split.validation]), split


def prepare_cases(
    run: RunFolder, cohort: Cohort, split: Split, cache: str | Path | None
) -> tuple[list[CachedCase], list[CachedCase]]:
    """The cases to train and to validate on; what the settings leave open is taken from the cohort.

    Raises:
        EmimError: when a case cannot be prepared.
        Cancelled: when the run is asked to stop.
    """
    from emim.volumes.cache import build_cache
    from emim.volumes.preprocess import resolve_spacing

    config = run.config
    if config.preprocess.spacing is None or config.modalities != cohort.modalities:
        preprocess = resolve_spacing(cohort, config.preprocess)
        run.save_config(dataclasses.replace(config, modalities=cohort.modalities, preprocess=preprocess))
    cases = build_cache(
        cohort,
        run.config.preprocess,
        Path(cache) if cache else None,
        run.events,
        should_stop=run.cancel_requested,
    )
    by_id = {c.id: c for c in cases}
    return [by_id[i] for i in split.training], [by_id[i] for i in split.validation]
