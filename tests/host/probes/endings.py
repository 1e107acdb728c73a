"""What an identity's ending does to a text condition, beside the same identity without one."""
from dataclasses import replace


def added(probe):
    """a: CLIP; b: Identity; arguments: text → at which positions something was added, how far it is from the ending at the worst, and what share of the
    ending it is at each position."""
    applied, with_identity = probe.module("idea_engine.applying.applied").AppliedIdentity, probe.module("nodes.host.prompt_tokens").with_identity

    def encoded(identity):
        clip = with_identity(probe.a, applied(identity))
        return clip.encode_from_tokens(clip.tokenize(probe.arguments["text"]))[0].float()

    difference = encoded(probe.b) - encoded(replace(probe.b, ending=None))
    where = difference.abs().amax(-1) > 0
    ending = probe.b.ending
    shares = difference @ ending / ending.square().sum()
    error = (difference - shares[:, None] * ending).abs().max()
    return {"length": len(where), "positions": where.nonzero()[:, 0].tolist(), "shares": shares.tolist(), "error": float(error)}
