"""Identities in a diffusers pipeline: inside ``with applied(pipe, [anna]) as pipe:`` the word ``<anna>`` is her, as in ComfyUI.

The pipeline keeps its own ``__call__``, scheduler and settings. What changes while the block is open: prompts that mention somebody are
encoded with their pseudo-tokens and adapter, and the UNet's cross-attention reads the identity's keys and values at those positions.
"""
from __future__ import annotations

import hashlib
import inspect
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from ..backends.base import TextCondition
from ..backends.diffusers import DiffusersBackend
from ..backends.noise_stages import stage_of
from ..errors import TriggerError, UnsupportedModelError
from ..identity.identity import Identity
from ..prompts.trigger import check_trigger, trigger_pattern
from .applied import CHUNK, STARTS_AT, AppliedIdentity, Place, adapt, check_fits, inactive_sets


@contextmanager
def applied(pipe, people: Sequence[Identity | AppliedIdentity]) -> Iterator:
    """The pipeline with identities; afterwards it is bit for bit what it was.

    Prompts that mention nobody come out as without us (but for the recipe ``paper``, which changes weights for all prompts).

    Args:
        pipe: a Stable Diffusion 1.x, 2.x or XL pipeline (text to image, image to image, inpainting).
        people: identities, as trained or with a strength and a range of the sampling.

    Raises:
        UnsupportedModelError: the pipeline is of no supported family, or an identity has a mask.
        FamilyMismatchError: an identity was made for another one.
        TriggerError: two identities share a trigger, or one is already a word; or ``pipe`` has identities applied already.
    """
    everyone = [one if isinstance(one, AppliedIdentity) else AppliedIdentity(one) for one in people]
    acting = [one for one in everyone if not one.inert]
    if "encode_prompt" in vars(pipe):
        raise TriggerError("This pipeline has identities applied already. Give all of them in one list, so that the prompt can tell them apart.")
    masked = [one.identity.trigger for one in everyone if one.mask is not None]
    if masked:
        raise UnsupportedModelError(
            f"{' and '.join(masked)} should act in a part of the picture only, which a diffusers pipeline cannot do. Leave mask out, or use the mask of "
            "Apply ID Adapter in ComfyUI."
        )
    backend = DiffusersBackend(pipe)
    shapes = [tuple(block.to_k.weight.shape) for block in backend.blocks]
    triggers = [one.identity.trigger for one in everyone]
    for one in everyone:
        check_trigger(one.identity.trigger, backend.word_ids)
        check_fits(one.identity, backend.family, shapes)
        if triggers.count(one.identity.trigger) > 1:
            raise TriggerError(f"Two identities answer to {one.identity.trigger}, so the prompt could not tell them apart. Give one of them another trigger.")
    if not acting:
        yield pipe
        return
    text = _Texts(pipe, backend, acting)
    attention = _Attention(backend, acting, text)
    with ExitStack() as stack:
        for handle in attention.hook(pipe.unet):
            stack.callback(handle.remove)
        pipe.encode_prompt = text.encode_prompt
        stack.callback(vars(pipe).pop, "encode_prompt", None)
        yield pipe


@dataclass(frozen=True)
class _Encoded:
    """One prompt that mentions somebody.

    Attributes:
        places: the mentions in it.
        staged: what keys and values read instead at the mentions of identities in stages: (positions, (S, 2, n, d)) each.
        without: mentions that are out of their range → the prompt with those as plain words (77, d), and the mentions that are left, and
            those of them that have stages.
    """

    places: tuple[Place, ...]
    staged: tuple[tuple[tuple[int, ...], Tensor], ...]
    without: Mapping[frozenset[str], tuple]

    def at(self, inactive: frozenset[str]) -> tuple:
        """What is read while ``inactive`` are out of their range; None for the prompt as it is."""
        absent = max((missing for missing in self.without if missing <= inactive), key=len, default=None)
        return (None, self.places, self.staged) if absent is None else self.without[absent]


class _Texts:
    """Takes the place of a pipeline's ``encode_prompt`` and remembers the prompts that mention somebody by their content."""

    def __init__(self, pipe, backend: DiffusersBackend, people: Sequence[AppliedIdentity]):
        self.pipe, self.backend, self.people = pipe, backend, tuple(people)
        self.by_key = {one.key: one for one in people}
        self.original = pipe.encode_prompt
        self.signature = inspect.signature(self.original)
        self.known: dict[bytes, _Encoded] = {}

    @torch.no_grad()
    def encode_prompt(self, *args, **kwargs):
        """As the pipeline's own, which encodes everything first; prompts that mention somebody are then encoded again and put in their places."""
        encoded = list(self.original(*args, **kwargs))
        given = self.signature.bind(*args, **kwargs)
        given.apply_defaults()
        given = given.arguments
        for kind, slot in (("prompt", 0), ("negative_prompt", 1)):
            texts = [given.get(kind), given.get(f"{kind}_2")]
            if given.get(f"{kind}_embeds") is not None or texts[0] is None or encoded[slot] is None:
                continue
            pooled_slot = slot + 2 if len(encoded) > slot + 2 else None
            encoded[slot], pooled = self._replaced(texts, encoded[slot], None if pooled_slot is None else encoded[pooled_slot], given)
            if pooled_slot is not None:
                encoded[pooled_slot] = pooled
        return tuple(encoded)

    def _replaced(self, texts: list, rows: Tensor, pooled: Tensor | None, given: Mapping) -> tuple[Tensor, Tensor | None]:
        """``rows`` (P · k, 77, d) and ``pooled`` of P prompts, k pictures each, with the prompts that mention somebody exchanged."""
        first = [texts[0]] if isinstance(texts[0], str) else list(texts[0])
        second = first if not texts[1] else [texts[1]] if isinstance(texts[1], str) else list(texts[1])
        each = max(1, given.get("num_images_per_prompt") or 1)
        prompts = len(rows) // each
        for number in range(prompts):
            pair = (first[number % len(first)], second[number % len(second)])
            if not self._mentions(pair):
                continue
            if given.get("clip_skip") is not None:
                raise TriggerError("Identities are learned on the text encoder's own output layer; leave clip_skip out of prompts that mention one.")
            condition, places, staged = self._encode(pair, frozenset())
            part = slice(number * each, (number + 1) * each)
            rows, pooled = rows.clone(), None if pooled is None else pooled.clone()
            rows[part] = condition.context.to(rows)
            if pooled is not None:
                pooled[part] = condition.pooled.to(pooled)
            without = {}
            bounded = [place.applied for place in places if place.applied.bounded]
            for absent in inactive_sets(bounded) if bounded else ():
                variant, left, left_staged = self._encode(pair, absent)
                without[absent] = (variant.context[0].to(rows), left, left_staged)
            self.known[_digest(rows[number * each])] = _Encoded(places, staged, without)
        return rows, pooled

    def _mentions(self, pair: tuple[str, str]) -> bool:
        pattern = trigger_pattern([one.identity.trigger for one in self.people])
        return any(pattern.search(text) for text in pair)

    def _encode(self, pair: tuple[str, str], absent: frozenset[str]) -> tuple[TextCondition, tuple[Place, ...], tuple]:
        """One prompt with its mentions but those of ``absent``, and their stages; the adapters have acted on all of it."""
        inputs, found, end, last = {}, {}, 0, 0
        for (key, tokenizer), text in zip(self.backend.tokenizers.items(), pair):
            rows, places, end = self._read(key, tokenizer, text, absent)
            inputs[key], last = rows[None], max(last, end)
            for place in places:
                found.setdefault(place.applied.key, {}).setdefault(key, []).append(place)
        # Of SDXL's two texts the first that mentions an identity counts; the last encoder's end is where SDXL reads its pooled feature.
        places = tuple(place for by_encoder in found.values() for place in next(iter(by_encoder.values())))
        condition = self.backend.encode_text(inputs, [end])
        # One person under two triggers is one person, whose adapter acts once.
        persons = [Place(self.by_key[place.applied.key], place.positions, tuple(range(last, CHUNK))) for place in places]
        staged = []
        for person, by_encoder in found.items():
            tokens = [tokens for stage in self.by_key[person].faded.stages for tokens in (stage.key, stage.value)]
            if not tokens:
                continue
            variants = {key: rows.repeat(len(tokens), 1, 1) for key, rows in inputs.items()}
            for key, mentions in by_encoder.items():
                for place in mentions:
                    variants[key][:, list(place.positions)] = torch.stack([rows[key] for rows in tokens]).to(variants[key])
            contexts = adapt(self.backend.encode_text(variants, [end] * len(tokens)).context, persons)
            staged += [(place.positions, contexts[:, list(place.positions)].unflatten(0, (-1, 2))) for place in places if place.applied.key == person]
        return TextCondition(adapt(condition.context, persons), condition.pooled), places, tuple(staged)

    def _read(self, key: str, tokenizer, text: str, absent: frozenset[str]) -> tuple[Tensor, list[Place], int]:
        """(77, w) input embeddings of one text, the mentions in it, and the index of its end mark."""
        named = {one.identity.trigger: one for one in self.people if one.mention not in absent}
        ids: list[int] = [tokenizer.bos_token_id]
        places: list[Place] = []

        def plain(words: str) -> None:
            if hasattr(self.pipe, "maybe_convert_prompt"):  # textual inversions of the pipeline's own
                words = self.pipe.maybe_convert_prompt(words, tokenizer)
            ids.extend(tokenizer(words, add_special_tokens=False, truncation=False, verbose=False).input_ids)

        after = 0
        for mention in trigger_pattern(tuple(named)).finditer(text) if named else ():
            plain(text[after : mention.start()])
            one = named[mention[0]]
            places.append(Place(one, tuple(range(len(ids), len(ids) + one.identity.token_count))))
            ids.extend([tokenizer.eos_token_id] * one.identity.token_count)
            after = mention.end()
        plain(text[after:])
        if places and places[-1].positions[-1] >= CHUNK - 1:
            raise TriggerError(
                f"The prompt mentions {places[-1].applied.identity.trigger} after its {CHUNK - 2}th token, where a diffusers pipeline cuts prompts off. "
                "Mention the person earlier, or shorten the prompt."
            )
        ids = ids[: CHUNK - 1]
        end = len(ids)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        ids += [tokenizer.eos_token_id] + [pad] * (CHUNK - 1 - end)
        rows = self.backend.token_rows(key, torch.tensor(ids)).clone()
        for place in places:
            rows[list(place.positions)] = place.applied.faded.tokens[key].to(rows)
        return rows, places, end


@dataclass(frozen=True)
class _Plan:
    """What one UNet call reads: its context (B, 77, d), and each identity's (B, 77, n) mask of its own positions.

    ``staged``: which prompt of the batch, positions in it, and (S, 2, n, d) what keys and values read there in each stage.
    """

    context: Tensor
    staged: tuple[tuple[int, tuple[int, ...], Tensor], ...]
    masks: tuple[tuple[AppliedIdentity, Tensor], ...]


class _Attention:
    """The UNet's side, as hooks: before a UNet call it is found out who is in the context; the projections of each block read it."""

    def __init__(self, backend: DiffusersBackend, people: Sequence[AppliedIdentity], texts: _Texts):
        self.backend, self.texts = backend, texts
        last = backend.timesteps - 1
        # Sampling percent as hosts have it: 0 is the noisiest timestep and everything above, 1 the cleanest and everything below.
        self.ranges = {
            one.mention: (torch.inf if one.start <= 0 else (1 - one.start) * last, -torch.inf if one.end >= 1 else (1 - one.end) * last) for one in people
        }
        self.early = {one.mention for one in people if 0 < one.start <= STARTS_AT}
        self.people = {one.key: one for one in people}
        self.steady = not any(one.bounded or len(one.identity.stages) > 1 for one in people)
        self.plan: _Plan | None = None
        self.time = 0.0
        self._seen: tuple | None = None
        self._offsets: dict[tuple, Tensor] = {}

    def hook(self, unet: nn.Module) -> Iterator:
        """Handles of the hooks, as they are put in place."""
        yield unet.register_forward_pre_hook(self._before, with_kwargs=True)
        for number, block in enumerate(self.backend.blocks):
            for kind, projection in (("key", block.to_k), ("value", block.to_v)):
                yield projection.register_forward_pre_hook(self._add_offsets(f"{kind}_offsets", number))
                changes = [weights[number] for one in self.people.values() if number in (weights := getattr(one.faded, f"{kind}_weights"))]
                if changes:
                    yield projection.register_forward_hook(_add_weights(sum(change.float() for change in changes)))

    def _before(self, unet: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict] | None:
        context = kwargs.get("encoder_hidden_states", args[2] if len(args) > 2 else None)
        timestep = kwargs.get("timestep", args[1] if len(args) > 1 else None)
        self.plan = self._planned(context, timestep)
        if self.plan is None or self.plan.context is context:
            return None
        if "encoder_hidden_states" in kwargs:
            return args, {**kwargs, "encoder_hidden_states": self.plan.context}
        return (*args[:2], self.plan.context, *args[3:]), kwargs

    def _planned(self, context, timestep) -> _Plan | None:
        if not isinstance(context, Tensor) or not self.texts.known:
            return None
        if not self.steady:  # reading it waits for the device
            self.time = float(timestep.flatten()[0]) if isinstance(timestep, Tensor) else float(timestep)
        time = self.time
        half = self._last_half()
        inactive = frozenset(
            mention for mention, (high, low) in self.ranges.items() if not low <= time <= (max(high, half) if mention in self.early else high)
        )
        # All steps of one picture get the same context object; what it holds is found out once.
        if self._seen is None or self._seen[0] is not context or self._seen[1:3] != (inactive, len(self.texts.known)):
            self._seen = (context, inactive, len(self.texts.known), self._plan(context, inactive))
        return self._seen[3]

    def _last_half(self) -> float:
        """The first timestep of the last half of those that are sampled: distilled models take one or two, and the usual start leaves them the person."""
        times = getattr(self.texts.pipe.scheduler, "timesteps", None) if self.early else None
        return -torch.inf if times is None or len(times) == 0 else float(times[len(times) // 2])

    def _plan(self, context: Tensor, inactive: frozenset[str]) -> _Plan | None:
        held = [self.texts.known.get(_digest(row)) for row in context]
        if not any(held):
            return None
        rows, masks, own, changed = list(context), {}, [], False
        for number, prompt in enumerate(held):
            if prompt is None:
                continue
            variant, places, staged = prompt.at(inactive)
            own += [(number, positions, stages.to(context)) for positions, stages in staged]
            if variant is not None:
                rows[number], changed = variant.to(context), True
            for place in places:
                mask = masks.setdefault(place.applied.key, torch.zeros(*context.shape[:2], len(place.positions)))
                mask[number, list(place.positions), range(len(place.positions))] = 1.0
        return _Plan(torch.stack(rows) if changed else context, tuple(own), tuple((self.people[key], mask.to(context)) for key, mask in masks.items() if self.people[key].faded.key_offsets))

    def _add_offsets(self, kind: str, number: int):
        def hook(module: nn.Module, args: tuple) -> tuple | None:
            plan = self.plan
            if plan is None or not (plan.masks or plan.staged) or args[0].shape[:2] != plan.context.shape[:2]:
                return None
            context = args[0]
            if plan.staged:
                context = context.clone()
                for prompt, positions, stages in plan.staged:
                    context[prompt, list(positions)] = stages[self._stage(len(stages)), int(kind == "value_offsets")].to(context)
            if plan.masks:
                context = context + sum(mask @ self._rows(one, kind, number, context) for one, mask in plan.masks)
            return (context, *args[1:])

        return hook

    def _stage(self, count: int) -> int:
        """The stage of this UNet call; schedulers may ask for times between two timesteps."""
        time = min(max(round(self.time), 0), self.backend.timesteps - 1)
        return int(stage_of(torch.tensor(time), count, self.backend.timesteps))

    def _rows(self, one: AppliedIdentity, kind: str, number: int, like: Tensor) -> Tensor:
        key = (one.key, kind, number, like.dtype, like.device)
        if key not in self._offsets:
            self._offsets[key] = getattr(one.faded, kind)[number].to(like)
        return self._offsets[key]


def _add_weights(change: Tensor):
    """The recipe ``paper`` changes the projections themselves, for every prompt."""
    moved: dict[tuple, Tensor] = {}

    def hook(module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        key = (args[0].dtype, args[0].device)
        if key not in moved:
            moved[key] = change.to(args[0])
        return out + args[0] @ moved[key].T

    return hook


def _digest(row: Tensor) -> bytes:
    return hashlib.sha256(row.detach().to("cpu", torch.float32).contiguous().numpy()).digest()
