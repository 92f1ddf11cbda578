"""What a fine-tuning run's model is to be."""

from __future__ import annotations

from pathlib import Path

from emim.cohort.patterns import card_patterns
from emim.config import ClassifierDesign, FinetuneConfig
from emim.package.model import ModelCard
from emim.run import environment
from emim.training.split import Split


def make_card(config: FinetuneConfig, split: Split, name: str) -> ModelCard:
    """What the model is to be; called ``name`` where the settings do not name it."""
    told = {f: v for f in ("description", "intended_use", "licence") if (v := getattr(config.card, f))}
    settings, knn = config.classification, config.classification.mode == "knn"
    classifies = config.task == "classification"
    design = ClassifierDesign(
        settings.pooling, settings.neighbours if knn else 0, len(split.training) if knn else 0
    )
    names = ", ".join(settings.classes if classifies else (s.name for s in config.structures))
    does = f"Tells {names} apart" if classifies else f"Segments {names}"
    dropped = config.modality_dropout > 0 and len(config.modalities) > 1
    return ModelCard(
        name=config.card.name or name,
        modalities=config.modalities,
        structures=config.structures,
        overlapping=config.overlapping,
        preprocess=config.preprocess,
        network=config.network,
        crop=config.train.crop,
        optional=config.modalities if dropped else (),
        patterns={m: card_patterns(m, config.card.patterns.get(m, ())) for m in config.modalities},
        training={
            "initialisation": Path(config.init).name if config.init else "from scratch",
            "training_cases": len(split.training),
            "validation_cases": len(split.validation),
            "steps": config.train.steps,
            "seed": config.train.seed,
            **({"mode": settings.mode} if classifies else {}),
            **({"segments": config.card.segments} if config.card.segments and not classifies else {}),
            "versions": {k: environment()[k] for k in ("emim", "torch", "monai")},
        },
        task=config.task,
        mirrored=config.train.mirror is not False,
        **({"classes": settings.classes, "classifier": design} if classifies else {}),
        **{"description": f"{does} on {', '.join(config.modalities)}.", **told},
    )
