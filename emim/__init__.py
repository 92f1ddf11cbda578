"""EMIM: self-supervised pre-training on a group's own unlabelled multi-modal MRI, and what follows.

The functions here mirror the commands of ``emim --help``. Importing this package loads neither
torch nor anything else that is slow; the functions do when they are called.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_API = {
    "scan": "emim.cohort.scan",
    "pretrain": "emim.training.pretrain",
    "finetune": "emim.training.finetune",
    "segment": "emim.inference.segment",
    "classify": "emim.inference.classify",
    "register": "emim.registration.register",
    "impute": "emim.imputation.impute",
    "evaluate": "emim.evaluation.segmentation",
    "evaluate_subsets": "emim.evaluation.by_subset",
    "evaluate_classes": "emim.evaluation.classification",
    "phantom": "emim.phantom.generate:generate",
    "list_runs": "emim.run_state",
    "read_run": "emim.run_state",
    "write_report": "emim.report.page",
    "read_package": "emim.package.bundle",
    "PretrainConfig": "emim.config",
    "FinetuneConfig": "emim.config",
    "with_preset": "emim.config",
    "override": "emim.config",
    "EmimError": "emim.errors",
    "Cancelled": "emim.errors",
    "Events": "emim.events",
}

__all__ = ["__version__", *_API]


def __getattr__(name: str) -> Any:
    if name not in _API:
        raise AttributeError(f"module 'emim' has no attribute {name!r}")
    module, _, attribute = _API[name].partition(":")
    return getattr(importlib.import_module(module), attribute or name)


def __dir__() -> list[str]:
    return __all__
