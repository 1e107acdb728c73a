"""A person who was written and does not act is spoken of: once for each prompt, on the node and in the log."""
from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .attention import IdentityAttention


class Listener:
    """An ``outer_sample`` wrapper: looks, after a sampling, at who acted in it."""

    def __init__(self, attention: "IdentityAttention"):
        self.attention = attention

    def __deepcopy__(self, memo) -> "Listener":
        return self

    def __call__(self, executor, *args, **kwargs):
        self.attention.met.clear()
        result = executor(*args, **kwargs)
        try:
            speak(self.attention)
        except Exception:  # a picture is not lost for a sentence
            logging.getLogger(__name__).exception("What did not act in this sampling could not be found out.")
        return result


def speak(attention: "IdentityAttention") -> None:
    """Say who was written and not recognised, and who was to act at noise levels at which no step fell."""
    from .notices import notify, running

    now = running()
    if now is None or now.node_id is None:
        return
    for applied in attention.people:
        trigger = applied.identity.trigger
        node = _apply_node(now, trigger)
        texts = _texts(now, trigger)
        met = any(bool(attention.met.get(key, False)) for key in (applied.key, applied.mention))
        if texts and not met and _acts_in_the_unet(applied):
            notify(node, (
                f"The prompt of {', '.join(texts)} mentions {trigger}, but what came to the sampler does not show where: a node between them changed it. "
                f"The words of {trigger} act; mask, range and own keys and values do not. Connect the text node's conditioning more directly, or leave "
                "mask and range at their defaults."
            ))
        elif texts and not attention.fell_into(applied):
            notify(node, (
                f"No step of this sampling falls between start_at {applied.start:g} and end_at {applied.end:g}, so {trigger} does not act. Lower start_at, "
                "raise end_at, or take more steps."
            ))


def _acts_in_the_unet(applied) -> bool:
    faded = applied.faded
    return applied.partial or bool(faded.key_offsets or faded.stages)


def _texts(now, trigger: str) -> list[str]:
    from ..graph_check import mentions_in, text_title

    return [text_title(now.graph, one) for one in mentions_in(now.graph, now.node_id, trigger)]


def _apply_node(now, trigger: str) -> str:
    """The Apply node that gave the sampler this person; where it cannot be told, the sampler."""
    from ..graph_check import APPLY
    from ..graph_wiring import Wiring

    wiring = Wiring(now.graph, {})
    found = [one for one in sorted(wiring.before([now.node_id])) if wiring.kind(one) in APPLY]
    named = [one for one in found if wiring.inputs(one).get("trigger") == trigger]
    return (named or (found if len(found) == 1 else []) or [now.node_id])[0]
