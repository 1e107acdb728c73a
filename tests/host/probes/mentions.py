"""How rows of text conditions are recognised and remembered."""
import torch


def recognised(probe):
    """→ for each dtype whether the signatures find exactly the equal rows among a thousand, two of them but for the sign of a zero or the last bit."""
    mentions = probe.module("nodes.host.mentions")
    answers = {}
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        generator = torch.Generator().manual_seed(0)
        rows, context = (torch.randn(*shape, generator=generator).to(dtype) for shape in ((1000, 64), (2, 77, 64)))
        context[0, 3], context[1, 5], context[1, 76] = rows[10], rows[999], rows[10]
        rows[10, 0] = 0.0
        context[0, 3, 0], context[1, 76, 0] = -0.0, 0.0
        context[1, 7] = rows[20]
        context[1, 7, 63] = torch.nextafter(context[1, 7, 63].float(), torch.tensor(9.0)) if dtype == torch.float32 else context[1, 7, 63] * 1.01
        found = mentions.match(context, rows)
        direct = (torch.cat([context[..., :16], context[..., -16:]], -1)[:, :, None] == torch.cat([rows[..., :16], rows[..., -16:]], -1)).all(-1)
        answers[str(dtype)] = [bool((found == direct).all()), found.nonzero().tolist()]
    return answers


def bounded_bytes(probe):
    """A memory that may hold 100 kB is given 40 prompts of 20 kB each, every one twice → bytes held after each prompt, and how many are left."""
    mentions = probe.module("nodes.host.mentions")
    limit, mentions._BOUNDED_BYTES = mentions._BOUNDED_BYTES, 100_000
    try:
        memory, held = mentions.Mentions(), []
        for number in range(40):
            for absent in ("one", "other"):
                rows = torch.full((10, 100), float(number))
                memory.remember_bounded(mentions.BoundedPrompt(rows, 1, {frozenset([absent]): rows + 1}))
            held.append(sum(prompt.nbytes for prompt in memory._bounded.values()))
        left = memory.bounded(frozenset(["one", "other"]))
        return {"held": held, "counted": memory._bounded_bytes, "left": [float(prompt.rows[0, 0]) for prompt in left], "both": [len(p.without) for p in left]}
    finally:
        mentions._BOUNDED_BYTES = limit
