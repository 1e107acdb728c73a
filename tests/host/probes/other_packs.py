"""What text nodes and model patches of other packs do to tokens, conditionings and attention, in a few lines each."""
import functools
import itertools

import torch


def text(probe):
    """a: CLIP; arguments: style, text → CONDITIONING."""
    return {"outputs": (STYLES[probe.arguments["style"]](probe.a, probe.arguments["text"]),)}


def _conditioning(condition, pooled):
    return [[condition, {"pooled_output": pooled}]]


def _stock(clip, words):
    return _conditioning(*clip.encode_from_tokens(clip.tokenize(words), return_pooled=True))


def _inner(clip):
    return {name.removeprefix("clip_"): one for name, one in vars(clip.tokenizer).items() if hasattr(one, "tokenize_with_weights")}


def _with_own_tokenizer(clip, words):
    """A pack that cuts the text by itself: only its own words and embeddings that it looks up by name, of which it wants two things to know."""

    def cut(self, spoken, return_word_ids=False, **kwargs):
        groups = []
        for word in spoken.split():
            if word.startswith("embedding:"):
                rows, _ = self._try_get_embedding(word.removeprefix("embedding:"))
                groups += [] if rows is None else [row for row in rows]
            else:
                groups += self.tokenizer(word)["input_ids"][1:-1]
        chunk = [(self.start_token, 1.0), *((token, 1.0) for token in groups), (self.end_token, 1.0)]
        return [chunk + [(getattr(self, "pad_token", 0), 1.0)] * (77 - len(chunk))]  # a host of 2024 has no name for it

    inner = _inner(clip)
    try:
        for one in inner.values():
            one.tokenize_with_weights = functools.partial(cut, one)
        return _stock(clip, words)
    finally:
        for one in inner.values():
            del one.tokenize_with_weights


def _with_own_engine(clip, words):
    """A pack that replaces both halves of every encoder: texts come as a list, chunks are numbers beside multipliers, embeddings are files only."""
    inner, changed = _inner(clip), []

    def cut(tokenizer, texts, return_word_ids=False, **kwargs):
        ids = [tokenizer.tokenizer(one)["input_ids"][1:-1] for one in texts]
        rows = [[tokenizer.start_token, *one, *[tokenizer.end_token] * (76 - len(one))] for one in ids]
        return [(rows, [[1.0] * 77 for _ in rows])]

    def encode(module, chunks):
        parts = [module([list(row) for row in rows]) for rows, _ in chunks]
        conditions = [condition * torch.tensor(weights)[..., None] for (condition, _), (_, weights) in zip(parts, chunks)]
        return torch.hstack(conditions), parts[0][1]

    modules = clip.cond_stage_model.__dict__["_modules"]
    try:
        for letter, one in inner.items():
            one.tokenize_with_weights = functools.partial(cut, one)
            module = modules[f"clip_{letter}"]
            module.encode_token_weights = functools.partial(encode, module)
            changed += [(one, "tokenize_with_weights"), (module, "encode_token_weights")]
        return _conditioning(*clip.encode_from_tokens(clip.tokenize([words]), return_pooled=True))
    finally:
        for one, name in changed:
            del one.__dict__[name]


def _with_rebuilt_chunks(clip, words, weigh=lambda chunks: chunks, after=lambda condition: condition):
    """A pack that takes the chunks apart for its own weights, and asks SDXL's two encoders one by one."""
    pairs = clip.tokenize(words, return_word_ids=True)
    pairs = {letter: weigh([[(token, weight) for token, weight, _ in chunk] for chunk in chunks]) for letter, chunks in pairs.items()}
    if "g" not in pairs:
        condition, pooled = clip.encode_from_tokens(pairs, return_pooled=True)
        return _conditioning(after(condition), pooled)
    clip.load_model()
    left, _ = clip.cond_stage_model.clip_l.encode_token_weights(pairs["l"])
    right, pooled = clip.cond_stage_model.clip_g.encode_token_weights(pairs["g"])
    return _conditioning(torch.cat([after(left) * 1.0, after(right) * 1.0], dim=-1), pooled)


def _with_its_mean_restored(clip, words):
    """… and, instead of weighing words in the encoder, multiplies their rows and brings the whole back to its mean."""
    weights = []

    def unweighed(chunks):
        weights[:] = [weight for chunk in chunks for _, weight in chunk]
        return [[(token, 1.0) for token, _ in chunk] for chunk in chunks]

    def weighed(condition):
        factors = torch.tensor(weights, dtype=condition.dtype).reshape(1, -1, 1).expand(condition.shape)
        made = condition * factors
        return (condition.mean() / made.mean()) * made

    return _with_rebuilt_chunks(clip, words, unweighed, weighed)


def _with_a_break(clip, words):
    """A pack that cuts two parts by themselves and appends the second's chunks to the first's."""
    pairs = clip.tokenize("a red house", return_word_ids=False)
    for letter, chunks in clip.tokenize(words).items():
        pairs[letter].extend(chunks)
    return _conditioning(*clip.encode_from_tokens(pairs, return_pooled=True))


def _averaged(clip, words):
    person, house = _stock(clip, words)[0], _stock(clip, "a red house on a hill")[0]
    return _conditioning(torch.mul(person[0], 0.6) + torch.mul(house[0], 1.0 - 0.6), person[1]["pooled_output"])


def _concatenated_and_scaled(clip, words):
    person, house = _stock(clip, words)[0], _stock(clip, "a red house on a hill")[0]
    return _conditioning(torch.cat((house[0], person[0] * 1.1), 1), person[1]["pooled_output"])


def _copied(clip, words):
    """A pack that hands on the bare numbers: nothing travels with them, but every row is what it was."""
    condition, more = _stock(clip, words)[0]
    return [[torch.from_numpy(condition.numpy().copy()), more]]


def _lost(clip, words):
    """A pack that computes with the bare numbers: nothing follows them, and no row is what it was."""
    condition, more = _stock(clip, words)[0]
    return [[torch.from_numpy(condition.numpy() * 0.9 + 0.01), more]]


STYLES = {
    "copied": _copied, "lost": _lost,
    "own tokenizer": _with_own_tokenizer, "own engine": _with_own_engine, "rebuilt chunks": _with_rebuilt_chunks,
    "mean restored": _with_its_mean_restored, "break": _with_a_break, "averaged": _averaged, "concatenated": _concatenated_and_scaled,
}


def couple(probe):
    """a: MODEL, b: CONDITIONING of the left half, c: of the right half → MODEL whose cross-attention reads them side by side (attention couple)."""
    model, regions = probe.a.clone(), [one[0][0] for one in (probe.b, probe.c)]
    kinds = []

    def read(n, keys, values, extra):
        kinds.clear()
        chunks = len(extra["cond_or_uncond"])
        made = [[], [], []]
        for kind, q, k, v in zip(extra["cond_or_uncond"], n.chunk(chunks), keys.chunk(chunks), values.chunk(chunks)):
            copies = 1 if kind else len(regions)
            own = torch.cat([one.to(k).repeat(q.shape[0], k.shape[1] // one.shape[1], 1) for one in regions]) if copies > 1 else k
            for part, value in zip(made, (q.repeat(copies, 1, 1), own, own if copies > 1 else v)):
                part.append(value)
            kinds.extend(itertools.repeat(kind, copies))
        return tuple(torch.cat(part) for part in made)

    def write(out, extra):
        side = int(out.shape[1] ** 0.5)  # of a square picture
        left = (torch.arange(side) < side // 2).repeat(side)[None, :, None].to(out)
        parts, whole, number = out.chunk(len(kinds)), [], 0
        while number < len(parts):
            if kinds[number]:
                whole.append(parts[number])
                number += 1
            else:
                whole.append(parts[number] * left + parts[number + 1] * (1 - left))
                number += 2
        return torch.cat(whole)

    model.set_model_attn2_patch(read)
    model.set_model_attn2_output_patch(write)
    return {"outputs": (model,)}


def gain(probe):
    """a: MODEL, b: CONDITIONING → the largest number that the first block's keys gain over the condition itself."""
    patch = probe.a.model_options["transformer_options"]["patches"]["attn2_patch"][-1]
    context = probe.b[0][0]
    block = next(iter(patch.numbers))
    n = torch.zeros(1, 4, 8)
    extra = {"block": block[:2], "block_index": block[2], "sigmas": torch.ones(1), "original_shape": [1, 4, 8, 8], "cond_or_uncond": [0]}
    _, keys, _ = patch(n, context, context, extra)
    return float((keys - context.as_subclass(torch.Tensor)).abs().max())


def acting(probe):
    """a: MODEL, b: CONDITIONING; arguments: steps → at each step of a real sampling, whether the person is active."""
    import comfy.sample

    model = probe.a.clone()
    patch = next(one for one in model.model_options["transformer_options"]["patches"]["attn2_patch"] if type(one).__name__ == "IdentityAttention")
    levels, acts = [], []

    def watch(n, keys, values, extra):
        level = float(extra["sigmas"][0])
        if level not in levels:
            levels.append(level)
            acts.append(all(entry.active(level) for entry in patch.entries))
        return n, keys, values

    watch.sees_all = True
    model.set_model_attn2_patch(watch)
    latent = torch.zeros(1, 4, 8, 8)
    comfy.sample.sample(model, comfy.sample.prepare_noise(latent, 1), probe.arguments["steps"], 1.0, "euler", "normal", probe.b, probe.b, latent, seed=1)
    return {"acts": acts}


def look_ups(probe):
    """arguments: prompts, how many are remembered → for each, the tensor operations of one look-up, and how many prompts it names."""
    from torch.utils._python_dispatch import TorchDispatchMode

    mentions = probe.module("nodes.host.mentions")

    class Count(TorchDispatchMode):
        total = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            Count.total += 1
            return func(*args, **(kwargs or {}))

    operations, found = [], []
    for count in probe.arguments["prompts"]:
        memory, generator = mentions.Mentions(), torch.Generator().manual_seed(0)
        rows = [torch.randn(77, 64, generator=generator) for _ in range(count)]
        for one in rows:
            memory.remember_bounded(mentions.BoundedPrompt(one, 1, {frozenset(["anna"]): one + 1}, (4, 5)))
        context = torch.stack([torch.randn(77, 64, generator=generator), rows[1]])
        memory.bounded_in(context)  # what is built anew after a prompt was encoded is no part of a step
        with torch.inference_mode(False):
            Count.total = 0
            with Count():
                named = memory.bounded_in(context.clone())
        operations.append(Count.total)
        found.append(len(named))
    return {"operations": operations, "found": found}


def changed_host(probe):
    """a: CLIP; arguments: change → a CLIP as a host might have it whose tokenizer was changed."""
    import copy

    change, clip = probe.arguments["change"], probe.a.clone()
    clip.tokenizer = copy.copy(clip.tokenizer)
    for name, inner in list(vars(clip.tokenizer).items()):
        if not hasattr(inner, "tokenize_with_weights"):
            continue
        kind = type(inner)
        looked_up = {
            "answers four": lambda self, name: (None, name, "", "something new"), "answers none": lambda self, name: None,
            "has another name": None, "cuts into dicts": None,
        }[change]

        def cut(self, text, return_word_ids=False, **kwargs):
            if change == "cuts into dicts":
                return [{"token": token, "weight": 1.0} for token in self.tokenizer(text)["input_ids"]]
            words = [word for word in text.split(" ") if word]
            if any(word.startswith("embedding:") for word in words) and change == "has another name":
                words = [word for word in words if not word.startswith("embedding:")]
            elif any(word.startswith("embedding:") for word in words):
                _, _, _ = self._try_get_embedding(next(word for word in words if word.startswith("embedding:")))
            return kind.tokenize_with_weights(self, " ".join(words), return_word_ids, **kwargs)

        made = {"tokenize_with_weights": cut, "__module__": kind.__module__}
        if looked_up is not None:
            made["_try_get_embedding"] = looked_up
        duplicate = copy.copy(inner)
        duplicate.__class__ = type(kind.__name__, (kind,), made)
        setattr(clip.tokenizer, name, duplicate)
    return {"outputs": (clip,)}


def rows_in(probe):
    """a: CLIP; arguments: text → how many rows of people stand among its tokens."""
    return sum(torch.is_tensor(entry[0]) for chunk in next(iter(probe.a.tokenize(probe.arguments["text"]).values())) for entry in chunk)


def changed_model(probe):
    """a: MODEL → a MODEL whose patches lie elsewhere, as a host might come to have it."""
    model = probe.a.clone()

    class Changed(type(model)):
        def clone(self, *args, **kwargs):
            made = super().clone(*args, **kwargs)
            made.model_options = {"patches of transformers": {}}
            return made

    model.__class__ = Changed
    return {"outputs": (model,)}
