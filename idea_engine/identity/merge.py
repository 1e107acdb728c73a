"""Several identities made into one: siblings, older and younger, between two people, away from somebody."""
from __future__ import annotations

import math
from dataclasses import replace
from typing import Sequence

import torch
from torch import Tensor

from ..errors import MergeError
from .file import MAX_STACKED
from .identity import AdapterWeights, Identity
from .operations import map_tensors, named_tensors, rounded

_SMALLEST_SUM = 1e-3  # of the weights, which are scaled to a sum of 1
_LARGEST_SHARE = 10.0  # of one weight after that scaling; beyond it the result is noise


def merge_identities(identities: Sequence[Identity], weights: Sequence[float], trigger: str) -> Identity:
    """The weighted mean of identities that were made by one recipe for one family; order does not matter.

    Pseudo-tokens are an average person (the anchor) plus a step away from it. Steps of two people point in nearly independent directions, so
    their plain mean is shorter and looks average. Therefore directions are averaged, and the length is the mean of the lengths. That is a
    spherical interpolation in effect, but unlike slerp it takes any number of people and negative weights, and does not depend on their order.
    The identity's own keys and values are averaged alike. Adapters cannot be averaged weight by weight: each attends in a basis of its
    own. They are stacked, and together they add exactly the weighted sum of what each would add.

    Args:
        weights: one for each identity, scaled to a sum of 1; a negative one leads away from that person; 0 leaves them out.
        trigger: of the result.

    Raises:
        MergeError: fewer than two identities, weights that cannot be scaled, or identities of different families, recipes or shapes.
    """
    if len(identities) != len(weights):
        raise ValueError(f"there are {len(identities)} identities but {len(weights)} weights")
    pairs = [(identity, float(weight)) for identity, weight in zip(identities, weights) if weight != 0.0]
    shares = _shares([weight for _, weight in pairs])
    people = [identity for identity, _ in pairs]
    if len(people) == 1:
        return people[0].with_trigger(trigger)
    _check_alike(people)
    tensors = [named_tensors(replace(person, face=None, adapter=None)) for person in people]
    anchored = all(person.anchor for person in people)

    def merged(name: str, _: Tensor) -> Tensor:
        rows = [named[name].float() for named in tensors]
        if name.startswith("anchor.") or name.endswith("_weight"):
            return _mean(rows, shares)
        centre = f"anchor.{name.rsplit('.', 1)[-1]}"
        if anchored and centre in tensors[0]:  # pseudo-tokens, of every stage
            starts = [named[centre].float() for named in tensors]
            return _mean(starts, shares) + _mean_step([row - start for row, start in zip(rows, starts)], shares)
        return _mean_step(rows, shares)

    first = replace(people[0], face=None, adapter=None, anchor=people[0].anchor if anchored else {})
    made = map_tensors(first, merged)
    return rounded(replace(made, adapter=_stacked(people, shares), face=_mean_face(people, shares), metadata=_metadata(people, shares, trigger)))


def _shares(weights: Sequence[float]) -> list[float]:
    total = sum(weights)
    if not weights or not all(map(math.isfinite, weights)) or abs(total) < _SMALLEST_SUM or max(abs(w / total) for w in weights) > _LARGEST_SHARE:
        raise MergeError(
            f"The weights {', '.join(f'{w:g}' for w in weights) or 'are all 0'} nearly cancel, so nobody would be left. "
            "Let the weights of Merge Identities have a clearly positive sum, for example 1 and -0.3."
        )
    return [weight / total for weight in weights]


def _check_alike(people: Sequence[Identity]) -> None:
    first = people[0]
    for other in people[1:]:
        if other.family != first.family:
            raise MergeError(
                f"{first.trigger} was made for {first.family.describe()} and {other.trigger} for {other.family.describe()}; only identities of one family "
                "can be merged. Bring one of them to the other's model with Refit Identity first."
            )
        if other.metadata.method != first.metadata.method:
            raise MergeError(
                f"{first.trigger} was made by the recipe {first.metadata.method} and {other.trigger} by {other.metadata.method}, which learn different things; "
                "only identities of one recipe can be merged. Train one of them again with the other's recipe."
            )
        shapes = [{name: tuple(tensor.shape) for name, tensor in named_tensors(replace(one, face=None, adapter=None, anchor={})).items()} for one in (first, other)]
        scopes = [None if one.adapter is None else one.adapter.scope for one in (first, other)]
        if shapes[0] != shapes[1] or scopes[0] != scopes[1]:
            raise MergeError(
                f"{first.trigger} and {other.trigger} do not hold the same parts (numbers of pseudo-tokens or cross-attention blocks differ), so they cannot "
                "be merged. Train both with the same settings on the same checkpoint."
            )


def _mean(rows: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    return sum(share * row for row, share in zip(rows, shares))


def _mean_step(steps: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """Mean direction × mean length, row by row: (…, w) each."""
    mean = _mean(steps, shares)
    weight = sum(map(abs, shares))
    length = sum(abs(share) * step.norm(dim=-1, keepdim=True) for step, share in zip(steps, shares)) / weight
    # Two opposite steps leave no direction; there the plain mean, a short step, is kept.
    norm = mean.norm(dim=-1, keepdim=True)
    return torch.where(norm > 1e-3 * length, mean * (length / norm.clamp_min(1e-12)), mean)


def _stacked(people: Sequence[Identity], shares: Sequence[float]) -> AdapterWeights | None:
    """One adapter that adds the weighted sum of what the people's adapters add: their shares go into the output projections."""
    if people[0].adapter is None:
        return None
    total = sum(abs(share * person.adapter.gate) for person, share in zip(people, shares))
    if total == 0.0:
        return people[0].adapter  # none of them adds anything
    features: list[Tensor] = []
    attention: dict[str, list[Tensor]] = {name: [] for name in people[0].adapter.attention}
    for person, share in zip(people, shares):
        for part, state in person.adapter.parts():
            features.append(part.float())
            for name, tensor in state.items():
                scale = share * person.adapter.gate / total if name.startswith("out_proj.") else 1.0
                attention[name].append(tensor.float() * scale)
    if len(features) > MAX_STACKED:
        raise MergeError(f"The result would hold {len(features)} adapters, at most {MAX_STACKED} are possible. Merge fewer identities at once.")
    stack = {name: torch.stack(tensors) for name, tensors in attention.items()}
    return AdapterWeights(torch.stack(features), stack, total, people[0].adapter.scope)


def _mean_face(people: Sequence[Identity], shares: Sequence[float]) -> Tensor | None:
    if any(person.face is None for person in people) or len({person.metadata.recognizer for person in people}) > 1:
        return None
    return torch.nn.functional.normalize(_mean([person.face.float() for person in people], shares), dim=0)


def _metadata(people: Sequence[Identity], shares: Sequence[float], trigger: str):
    first = people[0].metadata
    hashes, recognizers = ({getattr(person.metadata, name) for person in people} for name in ("base_hash", "recognizer"))
    consents = [f"{person.trigger}: {person.metadata.consent or 'no consent noted'}" for person in people]
    return replace(
        first,
        trigger=trigger,
        base_hash=first.base_hash if len(hashes) == 1 else "",
        recognizer=first.recognizer if len(recognizers) == 1 else "several",
        licence=combined_licence([person.metadata.licence for person in people]),
        config={"merged": [{"trigger": person.trigger, "share": round(share, 6)} for person, share in zip(people, shares)]},
        consent="; ".join(consents) if any(person.metadata.consent for person in people) else "",
        thumbnail="",
    )


def combined_licence(licences: Sequence[str]) -> str:
    """What holds for something made of parts under several licences: all of them, the stricter first.

    A licence that forbids commercial use counts as the strictest, then one that is not known.
    """

    def strictness(licence: str) -> int:
        words = licence.lower()
        return 0 if "non-commercial" in words or "noncommercial" in words or "research" in words else 1 if "unknown" in words else 2

    known = sorted({licence or "unknown licence" for licence in licences}, key=lambda licence: (strictness(licence), licence))
    return "" if not any(licences) else "; and ".join(known)
