"""The texts of a model package: MONAI's metadata and configuration, and the page for people."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import emim
from emim.config import to_dict
from emim.package.model import ModelCard

CARD_VERSION = 2


def bundle_metadata(card: ModelCard) -> dict[str, Any]:
    """``configs/metadata.json``: MONAI's schema, with the model card under the key ``emim``."""
    classifies = card.task == "classification"
    structures = [s.name for s in card.structures]
    channels = structures if card.overlapping else ["background", *structures]
    pred: dict[str, Any] = {"format": "classes" if card.overlapping else "labels"}
    if classifies:
        channels = list(card.classes)
        pred = {"type": "probabilities", "format": "classes", "spatial_shape": [], "is_patch_data": False}
    sides = [f"{card.network.divisor}*{n}" for n in "nmk"]
    common = {"type": "image", "spatial_shape": sides, "dtype": "float32", "is_patch_data": True}
    clip = card.preprocess.clip
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": str(card.training.get("model_version", "1.0.0")),
        "changelog": {},
        "monai_version": _version("monai"),
        "pytorch_version": _version("torch"),
        "numpy_version": _version("numpy"),
        "required_packages_version": {p: _version(p) for p in ("emim", "SimpleITK", "nibabel")},
        "name": card.name,
        "task": f"{_does(card)[0]} in {', '.join(card.modalities)} MRI",
        "description": card.description or f"{_does(card)[1]}.",
        "authors": str(card.training.get("authors", "unspecified")),
        "copyright": str(card.training.get("copyright", "unspecified")),
        "data_source": str(card.training.get("data_source", "unspecified")),
        "data_type": "NIfTI, NRRD or MetaImage",
        "intended_use": card.intended_use,
        "network_data_format": {
            "inputs": {
                "image": {
                    **common,
                    "format": "magnitude",
                    "modality": "MR",
                    "num_channels": len(card.modalities),
                    "value_range": [-clip, clip],
                    "channel_def": {str(i): m for i, m in enumerate(card.modalities)},
                }
            },
            "outputs": {
                "pred": {
                    **common,
                    **pred,
                    "num_channels": card.outputs,
                    "value_range": [],
                    "channel_def": {str(i): c for i, c in enumerate(channels)},
                }
            },
        },
        "emim": {"card_version": CARD_VERSION, **to_dict(card)},
    }


def inference_config(card: ModelCard) -> dict[str, Any]:
    """``configs/inference.json``: network and, for segmentation, inferer for MONAI's ConfigParser.

    It needs EMIM installed, because the learned modality tokens are EMIM's; what comes before the
    network (physical-space resampling, normalisation) is done by ``emim segment`` and has no
    equivalent among MONAI's transforms, so this file does not pretend to be a full pipeline.
    """
    network = {
        "_target_": "emim.config.NetworkConfig",
        **{k: list(v) if isinstance(v, tuple) else v for k, v in to_dict(card.network).items()},
    }
    if card.task == "classification":
        return {
            "bundle_root": ".",
            "network_def": {
                "_target_": "emim.networks.build.build_classifier",
                "modalities": len(card.modalities),
                "classes": card.outputs,
                "config": network,
                "design": {"_target_": "emim.config.ClassifierDesign", **to_dict(card.classifier)},
            },
        }
    return {
        "bundle_root": ".",
        "network_def": {
            "_target_": "emim.networks.build.build_segmenter",
            "modalities": len(card.modalities),
            "outputs": card.outputs,
            "config": network,
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": [card.crop] * 3,
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
    }


def readme(card: ModelCard) -> str:
    """``docs/README.md``: the model card for a person."""
    spacing = " × ".join(f"{v:g}" for v in card.preprocess.spacing or ())
    lines = [f"# {card.name}", "", card.description or "(no description given)", ""]
    lines += ["## Intended use", "", card.intended_use, ""]
    lines += ["## Input", "", f"MRI, resampled to {spacing} mm, as these modalities:", ""]
    for modality in card.modalities:
        need = "may be missing" if modality in card.optional else "required"
        lines.append(f"- {modality} ({need})")
    lines += ["", "## Output", ""]
    if card.task == "classification":
        lines += ["The probability of each class:", "", *(f"- {c}" for c in card.classes)]
    else:
        kind = "Regions that may overlap:" if card.overlapping else "Structures that exclude each other:"
        lines += [kind, "", "| value | structure | label values in training |", "|---|---|---|"]
    for s in card.structures:
        lines.append(f"| {s.output} | {s.name} | {', '.join(map(str, s.values))} |")
    lines += ["", "## Training", ""]
    lines += [f"- {k}: {v}" for k, v in card.training.items()] or ["(no summary given)"]
    inputs = " ".join(f"--input {m}={m}.nii.gz" for m in card.modalities)
    command = f"emim segment --model THIS_FOLDER {inputs} --output seg.nii.gz"
    if card.task == "classification":
        command = f"emim classify --model THIS_FOLDER {inputs}"
    lines += ["", "## Use", "", "```", command, "```"]
    lines += ["", "## Licence", "", card.licence, ""]
    return "\n".join(lines)


def _does(card: ModelCard) -> tuple[str, str]:
    """What the model does, as a heading and as a sentence."""
    if card.task == "classification":
        names = " / ".join(card.classes)
        return f"Classification as {names}", f"Tells {names} apart"
    names = ", ".join(s.name for s in card.structures)
    return f"Segmentation of {names}", f"Segments {names}"


def _version(package: str) -> str:
    if package == "emim" and hasattr(emim, "__version__"):  # inside Slicer it is not installed by pip
        return emim.__version__
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"
