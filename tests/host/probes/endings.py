"""What an identity's ending does to a text condition, beside the same identity without one."""
from dataclasses import replace

import torch


def added(probe):
    """a: CLIP; b: Identity; arguments: text → at which positions something was added, and how far it is from the ending at the worst."""
    applied, with_identity = probe.module("idea_engine.applied").AppliedIdentity, probe.module("nodes.host.prompt_tokens").with_identity

    def encoded(identity):
        clip = with_identity(probe.a, applied(identity))
        return clip.encode_from_tokens(clip.tokenize(probe.arguments["text"]))[0].float()

    difference = encoded(probe.b) - encoded(replace(probe.b, ending=None))
    where = difference.abs().amax(-1) > 0
    return {"length": len(where), "positions": where.nonzero()[:, 0].tolist(), "error": max((difference[where] - probe.b.ending).abs().flatten().tolist(), default=0.0)}
