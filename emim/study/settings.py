"""From a study's settings and an arm's to those of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from emim.config import FinetuneConfig, PretrainConfig, override, with_preset
from emim.errors import EmimError
from emim.study.arm import Arm, Settings

KINDS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


def parse_settings(texts: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``SETTING=VALUE`` texts as settings of "pretrain" and "finetune".

    A setting goes to every kind of run that has it, or to one where its name begins with
    ``pretrain.`` or ``finetune.``.

    Raises:
        EmimError: for a text of another form, or a setting that no kind of run has.
    """
    found: dict[str, dict[str, Any]] = {kind: {} for kind in KINDS}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise EmimError(f"{text!r} is not a setting.", hint="Write --set SETTING=VALUE.")
        first, _, rest = name.partition(".")
        kinds = [first] if first in KINDS else list(KINDS)
        name = rest if first in KINDS else name
        kinds = [k for k in kinds if has_setting(KINDS[k](), name)]
        if not kinds:
            raise EmimError(f"There is no setting {name!r}.", hint="`config.json` of a run lists them.")
        for kind in kinds:
            found[kind][name] = value
    return found


def has_setting(config: Any, name: str) -> bool:
    """Whether ``config`` has the dotted setting ``name``."""
    for part in name.split("."):
        if not dataclasses.is_dataclass(config) or part not in {f.name for f in dataclasses.fields(config)}:
            return False
        config = getattr(config, part)
    return True


def base_config(kind: str, preset: str, settings: Mapping[str, Any]) -> Any:
    """The configuration of "pretrain" or "finetune" that arms change."""
    return override(with_preset(KINDS[kind](), preset), dict(settings))


def arm_settings(arm: Arm, kind: str, base: PretrainConfig) -> dict[str, Any]:
    """What ``arm`` sets in runs of ``kind``, by dotted name.

    ``base`` is the pre-training that arms change, from which values that depend on it are worked out.
    """
    own: Settings = (arm.pretraining if kind == "pretrain" else arm.finetuning) or {}
    both = {k: v for k, v in arm.both.items() if has_setting(KINDS[kind](), k)}
    return {k: v(base) if callable(v) else v for k, v in {**both, **own}.items()}


def as_text(value: Any) -> str:
    """``value`` as the command line writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(map(as_text, value))
    return str(value)
