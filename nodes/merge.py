"""MergeIdentities: several people into one."""
from __future__ import annotations

from .sockets import CATEGORY, IDENTITY, IDENTITY_OR_ENHANCED


class MergeIdentities:
    """A weighted mean of up to four identities."""

    DESCRIPTION = (
        "Makes one identity of several: a sibling of two people, somebody between them, older or younger (add the older self, subtract the younger), or "
        "less like somebody (a negative weight). All must come from one recipe and one model family."
    )
    CATEGORY = CATEGORY
    FUNCTION = "merge"
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "info")
    OUTPUT_TOOLTIPS = ("The merged person, for Apply ID Adapter and Save Identity.", "Who is in it with which share, and the licence that holds for all of it.")

    @classmethod
    def INPUT_TYPES(cls):
        weight = {"min": -2.0, "max": 2.0, "step": 0.05}
        more = "A further identity, or nothing."
        further = "Weight of the further identity; a negative one leads away from that person."
        return {
            "required": {
                "identity_a": (IDENTITY_OR_ENHANCED, {"tooltip": "From Train Identity or Load Identity."}),
                "weight_a": ("FLOAT", {"default": 0.5, **weight, "tooltip": "Share of the first person. Only the proportion counts: 1 and 1 is half and half."}),
                "identity_b": (IDENTITY_OR_ENHANCED, {"tooltip": "Another identity of the same recipe and family."}),
                "weight_b": ("FLOAT", {"default": 0.5, **weight, "tooltip": "Share of the second person; a negative one leads away from that person."}),
                "trigger": ("STRING", {"default": "<both>", "tooltip": "The word that stands for the merged person in your prompts."}),
            },
            "optional": {
                "identity_c": (IDENTITY_OR_ENHANCED, {"tooltip": more}),
                "weight_c": ("FLOAT", {"default": 0.5, **weight, "tooltip": further}),
                "identity_d": (IDENTITY_OR_ENHANCED, {"tooltip": more}),
                "weight_d": ("FLOAT", {"default": 0.5, **weight, "tooltip": further}),
            },
        }

    def merge(self, identity_a, weight_a, identity_b, weight_b, trigger, identity_c=None, weight_c=0.5, identity_d=None, weight_d=0.5):
        from ..idea_engine.identity.merge import merge_identities
        from ..idea_engine.identity.operations import as_identity
        from ..idea_engine.prompts.trigger import check_trigger
        from .identity import describe

        given = [(identity_a, weight_a), (identity_b, weight_b), (identity_c, weight_c), (identity_d, weight_d)]
        people, weights = zip(*(pair for pair in given if pair[0] is not None))
        merged = merge_identities([as_identity(person) for person in people], weights, check_trigger(trigger))
        shares = ", ".join(f"{part['trigger']} {part['share']:+.0%}" for part in merged.metadata.config.get("merged", ()))
        info = f"{describe(merged)}\nMade of: {shares}" if shares else describe(merged)
        return {"ui": {"text": [info]}, "result": (merged, info)}
