"""How a run begins, anew or resumed, up to its prepared cases."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emim.cohort.case import Cohort
from emim.cohort.scan import CaseRow, Scan
from emim.cohort.volume import VolumeFacts, may_be_same
from emim.config import TrainConfig
from emim.errors import EmimError
from emim.events import Events, to_json
from emim.machine.distributed import (
    launched_local_rank,
    node,
    nodes,
    on_every_rank,
    on_first_rank,
    rank,
    size,
)
from emim.run import RunFolder, write_json
from emim.training.preflight import refuse
from emim.training.split import Split, recorded_split
from emim.volumes.segments import same_name

if TYPE_CHECKING:
    from emim.volumes.cache import CachedCase

GRID = ("size", "spacing", "origin", "direction")


def open_run(out: str | Path, command: str, config: Any, **options: Any) -> RunFolder:
    """The run folder, with the same settings on every rank; see :class:`emim.run.RunFolder`.

    Raises:
        EmimError: also when the ranks cannot share a batch equally.
    """
    run = on_every_rank(lambda: RunFolder(out, command, config, **options))
    run.config = on_first_rank(lambda: run.config)
    check_ranks(run.config.train)
    return run


def first_rank_events(events: Events | None) -> Events:
    """``events`` where they are told, on the first rank; silent ones on the others."""
    return events if events is not None and rank() == 0 else Events()


def check_ranks(train: TrainConfig) -> None:
    """Refuse a batch that the ranks cannot share equally."""
    if train.batch % size():
        hint = f"It must be a multiple of {size()}, the number of processes, which share it."
        refuse("train.batch", train.batch, hint)
    if train.micro_batch is not None and train.micro_batch < 1:
        refuse("train.micro_batch", train.micro_batch, "It is a positive number of samples.")


def record_cohort(run: RunFolder, found: Scan, split: Split) -> None:
    """Write what a new run begins with, for when it is resumed; tell which named cases it goes without."""
    write_json(run.path / "cohort.json", found.to_dict())
    write_json(run.path / "split.json", split.to_dict())
    if split.unlabelled:
        run.events.warning(
            f"Named for training or validation, but without a label or class: {_names(split.unlabelled)}.",
            run.path / "split.json",
            "They are left out. Label them to use them.",
        )


def resume_cohort(run: RunFolder, found: Scan, device: str) -> tuple[Cohort, Split]:
    """Cases and split that a run began with. It goes on on ``device``; changed files are told and recorded.

    Raises:
        EmimError: when a case is no longer there.
    """
    if device != "auto":
        train = dataclasses.replace(run.config.train, device=device)
        run.config = dataclasses.replace(run.config, train=train)
    split = on_first_rank(lambda: recorded_split(run.path))
    known = {c.id for c in found.cohort.cases}
    if missing := [i for i in (*split.training, *split.validation) if i not in known]:
        raise EmimError(
            f"The run began with cases that the cohort lacks now: {', '.join(missing[:5])}.",
            found.source,
            "Give no cohort to use the run's own, and see that its files are where they were.",
        )
    labels = getattr(run.config, "task", None) == "segmentation"
    now = {same_name(s.name): s.value for s in found.segments}
    if labels and any(now.get(same_name(n), v) != v for n, v in run.config.card.segments.items()):
        raise EmimError(
            "Segments of the labels are numbered differently than when the run began.",
            found.source,
            "Give no cohort to use the run's own, or begin anew.",
        )
    cohort = found.cohort.with_modalities(run.config.modalities or found.cohort.modalities)
    cohort = cohort.select([*split.training, *split.validation])
    if changed := on_first_rank(lambda: _record_changed(run.path / "cohort.json", found, cohort, labels)):
        run.events.warning(
            f"Images or labels have changed since the run began: {_names(changed)}.",
            found.source,
            "The run goes on with them as they are now. Put the earlier files back, or begin anew.",
        )
    return cohort, split


def _record_changed(file: Path, found: Scan, cohort: Cohort, labels: bool) -> list[str]:
    """Ids of the cases of ``cohort`` whose voxels or grids are not those in ``file``, the run's record.

    There such a case gets, as ``changed``, what it is now beside what it was: the run has seen both.
    """
    record = json.loads(file.read_text(encoding="utf-8"))
    recorded = {c["id"]: c for c in record["cases"]}
    rows = {row.id: row for row in found.rows}
    changed = [
        c.id for c in cohort.cases if _differs(recorded.get(c.id, {}), rows[c.id], cohort.modalities, labels)
    ]
    for i in recorded.keys() & changed:
        row, states = to_json(rows[i].to_dict()), recorded[i].setdefault("changed", [])
        now = {name: row[name] for name in ("images", "label", "files")}
        states += [now] if now not in states else []
    if changed:
        write_json(file, record)
    return changed


def _differs(before: dict[str, Any], row: CaseRow, modalities: Sequence[str], labels: bool) -> bool:
    pairs = [(before.get("images", {}).get(m), row.images.get(m)) for m in modalities]
    if labels:
        pairs.append((before.get("label"), row.label))
        if before.get("recode", {}) != {str(value): meant for value, meant in row.recode.items()}:
            return True
    return any(_is_another(before.get("files", {}).get(old), row.files.get(new)) for old, new in pairs if old)


def _is_another(before: dict[str, Any] | None, now: VolumeFacts | None) -> bool:
    if before is None:  # not recorded
        return False
    if now is None or not may_be_same(before.get("digest"), now.digest):
        return True
    return any(before.get(k) != to_json(getattr(now, k)) for k in GRID)


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")


def prepare_cases(
    run: RunFolder, cohort: Cohort, split: Split, cache: str | Path | None
) -> tuple[list[CachedCase], list[CachedCase]]:
    """The cases to train and to validate on; what the settings leave open is taken from the cohort.

    One rank of each node prepares what is not in the cache. Several nodes first share the work, which
    suffices where they share the cache; then each makes what a cache of its own still lacks.

    Raises:
        EmimError: when a case cannot be prepared.
        Cancelled: when the run is asked to stop.
    """
    from emim.volumes.cache import build_cache
    from emim.volumes.preprocess import resolve_spacing

    config = run.config
    if config.preprocess.spacing is None or config.modalities != cohort.modalities:
        preprocess = on_first_rank(lambda: resolve_spacing(cohort, config.preprocess))
        run.save_config(dataclasses.replace(config, modalities=cohort.modalities, preprocess=preprocess))

    def build(ids: Sequence[str]) -> list[CachedCase]:
        folder = Path(cache) if cache else None
        part = cohort.select(ids)
        return build_cache(part, run.config.preprocess, folder, run.events, should_stop=run.cancel_requested)

    ids = [*split.training, *split.validation]
    shares = [ids[node() :: nodes()], ids] if nodes() > 1 else [ids] if size() > 1 else []
    builds = launched_local_rank() == 0
    for part in shares:
        on_every_rank(lambda part=part: build(part) if builds else None)
    cases = on_every_rank(lambda: build(ids))
    by_id = {c.id: c for c in cases}
    return [by_id[i] for i in split.training], [by_id[i] for i in split.validation]
