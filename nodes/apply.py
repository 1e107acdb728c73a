"""ApplyIDAdapter: a person for MODEL and CLIP."""
from __future__ import annotations

from ..idea_engine.applying.applied import STARTS_AT
from .sockets import CATEGORY, IDENTITY, IDENTITY_OR_ENHANCED


class ApplyIDAdapter:
    """Teaches a MODEL and a CLIP one identity; chain it for several people."""

    DESCRIPTION = (
        "After this node the trigger word of the identity stands for the person in every prompt. Prompts without the trigger come out exactly "
        "as without this node; so does everything at strength 0. The one exception: identities of the recipe 'paper' change the "
        "cross-attention's weights for all prompts, as the paper does. Chain several of these nodes for several people."
    )
    CATEGORY = CATEGORY
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL", "CLIP")
    RETURN_NAMES = ("model", "clip")
    OUTPUT_TOOLTIPS = ("For the sampler.", "For the text nodes of every prompt that mentions the person.")

    @classmethod
    def INPUT_TYPES(cls):
        percent = {"min": 0.0, "max": 1.0, "step": 0.01}
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The checkpoint, or the MODEL of another Apply ID Adapter."}),
                "clip": ("CLIP", {"tooltip": "The checkpoint's CLIP, or the CLIP of another Apply ID Adapter."}),
                "identity": (IDENTITY_OR_ENHANCED, {"tooltip": "From Train Identity or Load Identity; or from ID Enhancer, as the untrained start."}),
                "strength": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05, "tooltip": (
                    "1 = as trained. Towards 0 the person fades to an average one; 0 switches the node off. Above 1 exaggerates."
                )}),
                "start_at": ("FLOAT", {"default": STARTS_AT, **percent, "tooltip": (
                    "Where in the sampling the person appears, 0 = from the start. Before it the trigger is read as plain text, and the scene is laid out: "
                    "0.2 follows prompts better and is a little less alike. Up to 0.1 it never takes more than half of the steps: Turbo and LCM models take few."
                )}),
                "end_at": ("FLOAT", {"default": 1.0, **percent, "tooltip": (
                    "Where in the sampling the person stops acting, 1 = at the end. After it the trigger is read as plain text."
                )}),
            },
            "optional": {
                "trigger": ("STRING", {"default": "", "tooltip": "Another trigger word than the identity's own; empty = its own."}),
            },
        }

    def apply(self, model, clip, identity, strength, start_at, end_at, trigger=""):
        return _applied(model, clip, identity, trigger, lambda person: (person, strength), start_at, end_at)


class ApplyIDAdapterAdvanced:
    """ApplyIDAdapter with every part at its own strength, a mask, and somebody to lead away from."""

    DESCRIPTION = (
        "Apply ID Adapter with a strength for each part of the identity, a MASK for where in the picture the person acts, and optionally another identity "
        "to be unlike. With all strengths at 1 and nothing else connected it gives exactly what Apply ID Adapter gives."
    )
    CATEGORY = CATEGORY
    FUNCTION = "apply"
    RETURN_TYPES = ("MODEL", "CLIP")
    RETURN_NAMES = ("model", "clip")
    OUTPUT_TOOLTIPS = ("For the sampler.", "For the text nodes of every prompt that mentions the person.")

    @classmethod
    def INPUT_TYPES(cls):
        percent = {"min": 0.0, "max": 1.0, "step": 0.01}
        strength = {"default": 1.0, "min": 0.0, "max": 2.0, "step": 0.05}
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The checkpoint, or the MODEL of another Apply ID Adapter."}),
                "clip": ("CLIP", {"tooltip": "The checkpoint's CLIP, or the CLIP of another Apply ID Adapter."}),
                "identity": (IDENTITY_OR_ENHANCED, {"tooltip": "From Train Identity or Load Identity; or from ID Enhancer, as the untrained start."}),
                "token_strength": ("FLOAT", {**strength, "tooltip": "Of the pseudo-tokens: who it is. Towards 0 they fade to an average person."}),
                "adapter_strength": ("FLOAT", {**strength, "tooltip": "Of the adapter on the text condition: how the person colours the prompt."}),
                "key_value_strength": ("FLOAT", {**strength, "tooltip": "Of the identity's keys and values inside cross-attention: the fine likeness."}),
                "start_at": ("FLOAT", {"default": STARTS_AT, **percent, "tooltip": "Where in the sampling the person appears, 0 = from the start."}),
                "end_at": ("FLOAT", {"default": 1.0, **percent, "tooltip": "Where in the sampling the person stops acting, 1 = at the end."}),
            },
            "optional": {
                "trigger": ("STRING", {"default": "", "tooltip": "Another trigger word than the identity's own; empty = its own."}),
                "mask": ("MASK", {"tooltip": (
                    "The person acts only where the mask is white; elsewhere the trigger is read as plain text. Any size; it is fitted to the picture. "
                    "Several masks go to the pictures of a batch in turn."
                )}),
                "unlike": (IDENTITY, {"tooltip": "An identity to lead away from: 'not like this person'. Of the same recipe and family."}),
                "unlike_strength": ("FLOAT", {"default": 0.3, "min": 0.0, "max": 2.0, "step": 0.05, "tooltip": "How far to lead away from it; 0 = not at all."}),
            },
        }

    def apply(
        self, model, clip, identity, token_strength, adapter_strength, key_value_strength, start_at, end_at, trigger="", mask=None, unlike=None,
        unlike_strength=0.3,
    ):
        from ..idea_engine.identity.merge import merge_identities
        from ..idea_engine.identity.operations import faded_parts
        from .host.masks import check_mask

        strengths = (token_strength, adapter_strength, key_value_strength)

        def prepared(person):
            if unlike is not None and unlike_strength > 0.0:
                person = merge_identities([person, unlike], [1.0 + unlike_strength, -unlike_strength], person.trigger)
            if len(set(strengths)) == 1:
                return person, strengths[0]
            return faded_parts(person, *strengths), 1.0

        mask = None if mask is None else check_mask(mask, "Apply ID Adapter (Advanced)")
        return _applied(model, clip, identity, trigger, prepared, start_at, end_at, mask)


def _applied(model, clip, identity, trigger, prepared, start_at, end_at, mask=None):
    """MODEL and CLIP with a person; ``prepared`` gives the identity as it is to act and its strength."""
    from ..idea_engine.applying.applied import AppliedIdentity
    from ..idea_engine.identity.enhanced import EnhancedIdentity
    from ..idea_engine.identity.operations import untrained
    from ..idea_engine.prompts.trigger import check_trigger
    from .host import attention, prompt_tokens
    from .host.backend import word_ids
    from .host.family import check_identity, check_model, clip_family

    if isinstance(identity, EnhancedIdentity):
        identity = untrained(identity)
    family = clip_family(clip)
    check_identity(identity, family, check_model(model, family))
    identity = identity.with_trigger(check_trigger(trigger or identity.trigger, lambda text: word_ids(clip, text)))
    identity, strength = prepared(identity)
    applied = AppliedIdentity(identity, strength, start_at, end_at, mask)
    if applied.inert:
        return (model, clip)
    return (attention.with_identity(model, applied), prompt_tokens.with_identity(clip, applied))
