"""The studies by name. To add one, write its file and name it here."""

from __future__ import annotations

from importlib import import_module

from emim.errors import EmimError
from emim.study.arm import Study

NAMES = ("collapse", "convergence", "labels", "masking", "decoder", "resolution", "modalities", "probe")


def find_study(name: str) -> Study:
    """The study called ``name``.

    Raises:
        EmimError: when there is none.
    """
    if name not in NAMES:
        raise EmimError(f"There is no study {name!r}.", hint=f"Choose one of: {', '.join(NAMES)}.")
    return import_module(f"emim.study.{name}").STUDY
