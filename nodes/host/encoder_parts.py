"""SDXL's two encoders one by one: a node that encodes the parts by itself and joins them gets adapters and endings on the whole."""
from __future__ import annotations

from typing import Sequence

from torch import Tensor

from ...idea_engine.applying.applied import CHUNK, AppliedIdentity, Place, adapt, inactive_sets
from .carried import NOBODY, CarriedCondition, Ending, Without, carry, plain
from .mentions import MENTIONS, Mention
from .places import find_places, standing, with_layers
from .plain_words import without


class EncoderPart:
    """One encoder of SDXL's two, as a node sees it that encodes the parts by itself and joins them."""

    def __init__(self, encoder, name: str, module):
        self._encoder, self._name, self._module = encoder, name, module

    def __getattr__(self, name: str):
        return getattr(self._module, name)

    def __call__(self, *args, **kwargs):
        return self._module(*args, **kwargs)

    def encode_token_weights(self, chunks, *args, **kwargs):
        letter, applied = self._name.removeprefix("clip_"), self._encoder._idea_applied
        width = applied[0].identity.family.context_width

        def encode(part):
            return self._module.encode_token_weights(part, *args, **kwargs)

        encoded = encode(chunks)
        places = find_places({letter: chunks}, applied)
        if not places:
            return encoded
        layers, pooled = standing(places, encoded[0], endings=True), {}
        mentioned = {place.applied.mention for place in places}
        partial = [one for one in applied if one.partial and one.mention in mentioned]
        for absent in inactive_sets(partial) if partial else ():
            left = without({letter: chunks}, absent)[letter][: len(chunks)]
            variant, pooled[Without(absent)], *_ = encode(left)
            layers |= {Without(absent): variant, **standing(find_places({letter: left}, applied), variant, absent, endings=True)}

        def finish(whole: CarriedCondition) -> Tensor:
            return _joined(whole, applied) if whole.shape[-1] == width else whole

        return (carry(encoded[0], layers, finish), with_layers(encoded[1], pooled), *encoded[2:])


def _joined(whole: CarriedCondition, applied: Sequence[AppliedIdentity]) -> CarriedCondition:
    """Adapters and endings on a condition whose parts a node has joined, and on what it reads without those who come and go."""
    layers = {key: layer for key, layer in whole.layers.items() if not isinstance(key, Ending)}

    def adapted(condition: Tensor, absent: frozenset[str]) -> Tensor:
        places = []
        for one in applied:
            if one.mention in absent or one.mention not in whole.mentions():
                continue
            standing, ending = whole.weights(one.mention, one.identity.token_count, absent), whole.ending(one.mention, absent)
            tail = tuple(ending[0, :, 0].nonzero()[:, 0].tolist())
            for start in standing[0, :, 0].nonzero()[:, 0].tolist():
                chunk = range(start // CHUNK * CHUNK, (start // CHUNK + 1) * CHUNK)
                own = tuple(position for position in tail if position in chunk)
                places.append(Place(one, tuple(range(start, start + one.identity.token_count)), own, float(standing[0, start, 0])))
        for place in places:
            MENTIONS.remember(place.applied.key, Mention(condition[0, list(place.positions)], None, place.weight))
        return adapt(condition, places)

    finished = adapted(plain(whole), NOBODY)
    for absent in whole.absences()[1:]:
        layers[Without(absent)] = adapted(whole.layers[Without(absent)], absent)
    return carry(finished, layers)
