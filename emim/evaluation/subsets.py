"""Subsets of a model's modalities: named by a user, put in order, refused where a model cannot do them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

from emim.errors import EmimError
from emim.package.model import ModelCard

Subset = tuple[str, ...]
ALL, LEAVE_ONE_OUT = "all", "leave-one-out"
PRESENT, ABSENT = "●", "○"


def parse_subsets(text: str, modalities: Sequence[str]) -> list[Subset]:
    """Subsets of ``modalities``, each in their order.

    Args:
        text: ``all`` (every non-empty subset), ``leave-one-out`` (all modalities, then all but each one), or
            a list such as ``T1+T2,FLAIR``, in whose order they are kept; upper and lower case are the same.

    Raises:
        EmimError: for a modality the model does not have, and a subset named twice.
    """
    if text.strip().casefold() == ALL:
        counts = range(len(modalities), 0, -1)
        return [subset for n in counts for subset in combinations(modalities, n)]
    if text.strip().casefold() == LEAVE_ONE_OUT:
        fewer = [tuple(m for m in modalities if m != left_out) for left_out in modalities]
        return [tuple(modalities), *(s for s in fewer if s)]
    return distinct((_names(part, modalities) for part in text.split(",")), modalities)


def distinct(named: Iterable[Iterable[str]], modalities: Sequence[str]) -> list[Subset]:
    """The subsets ``named``, each in the order of ``modalities``.

    Raises:
        EmimError: as :func:`parse_subsets`, and for a subset without any modality.
    """
    subsets: list[Subset] = []
    for names in named:
        found = {_find(name, modalities) for name in names}
        subset = tuple(m for m in modalities if m in found)
        if not subset:
            raise EmimError("A subset names no modality.", hint=f"The model has {', '.join(modalities)}.")
        if subset in subsets:
            raise EmimError(f"The subset {'+'.join(subset)} is given twice.", hint="Name each once.")
        subsets.append(subset)
    return subsets


def check_trained(subsets: Iterable[Subset], card: ModelCard) -> None:
    """Refuse subsets without a modality that the model was not trained to do without.

    Raises:
        EmimError: naming those modalities.
    """
    needed = [m for m in card.modalities if m not in card.optional]
    missed = [m for m in needed if any(m not in subset for subset in subsets)]
    if missed:
        raise EmimError(
            f"The model {card.name} was not trained to do without {', '.join(missed)}.",
            hint="Fine-tune with modality_dropout above 0, or ask for untrained subsets too (--untrained).",
        )


def marks(subset: Subset, modalities: Sequence[str]) -> list[str]:
    """One mark per modality: whether it is in ``subset``."""
    return [PRESENT if m in subset else ABSENT for m in modalities]


def _names(part: str, modalities: Sequence[str]) -> list[str]:
    """The modalities that one part of the list names; a name may itself hold a plus, as T1+C does."""
    if part.strip().casefold() in {m.casefold() for m in modalities}:
        return [part]
    return part.split("+")


def _find(name: str, modalities: Sequence[str]) -> str:
    for modality in modalities:
        if modality.casefold() == name.strip().casefold():
            return modality
    raise EmimError(
        f"The model has no modality {name.strip()!r}.",
        hint=f"It has {', '.join(modalities)}. Write {ALL}, {LEAVE_ONE_OUT}, or a list such as T1+T2,FLAIR.",
    )
