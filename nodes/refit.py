"""RefitIdentity: a person moved to another base model."""
from __future__ import annotations

from .host.lists import one_person
from .learning import JUDGE, PREVIEW_EVERY
from .sockets import CATEGORY, ENHANCED, IDENTITY

ID_EA = ("balanced", "fast", "best", "paper", "released")  # what starts from one row per pseudo-token; identities of other recipes go on as the first


class RefitIdentity:
    """A short training on a new checkpoint that starts where the old identity ended."""

    DESCRIPTION = (
        "Brings an identity to another base model: 25 steps on the new checkpoint, from the nearest start that the old identity gives. Between SD 1.x and "
        "SDXL, and between checkpoints of one family, what the shared text encoder learned is kept. Cancel, Stop and the strip below work as in Train "
        "Identity, and the same inputs are never trained twice."
    )
    CATEGORY = CATEGORY
    FUNCTION = "refit"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    RETURN_TYPES = (IDENTITY, "IMAGE")
    RETURN_NAMES = ("identity", "chart")
    OUTPUT_TOOLTIPS = ("The person for the new checkpoint, for Apply ID Adapter and Save Identity.", "The loss of every training step, and the likeness where it was measured.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "identity": (IDENTITY, {"tooltip": "The person as learned on another model, from Load Identity or Train Identity."}),
                "model": ("MODEL", {"tooltip": "The new checkpoint. It is not changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder of the new checkpoint. It is not changed."}),
                "vae": ("VAE", {"tooltip": "The new checkpoint's VAE; encodes each photograph once."}),
                "image": ("IMAGE", {"tooltip": "One or a few photographs of the person, as a batch or as a list of any sizes."}),
                "enhanced": (ENHANCED, {"tooltip": "From ID Enhancer, made with the new checkpoint's CLIP."}),
                "steps": ("INT", {"default": 25, "min": 1, "max": 10000, "tooltip": "Training steps. 25 are enough where a text encoder is shared."}),
                "resolution": ("INT", {"default": 0, "min": 0, "max": 2048, "step": 8, "tooltip": "Side of the training pictures in pixels; 0 = 512, 768 for SD 2.x that predicts v, 1024 for SDXL."}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "The same seed and inputs give the same identity."}),
            },
            "optional": {"preview_every": PREVIEW_EVERY, "face_model": JUDGE},
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @one_person("Refit Identity", pictures=("image",))
    def refit(self, identity, model, clip, vae, image, enhanced, steps, resolution, seed, preview_every=0, face_model=None, node_id=None):
        from ..idea_engine.files.fingerprint import content_key
        from ..idea_engine.identity.operations import content_hash
        from ..idea_engine.training.config import TrainConfig
        from ..idea_engine.training.refit import build_from, carried_over, nearest_start
        from .host.images import check_pictures
        from .learning import base_rate, course_chart, face_masks, learn, training_backend, training_key, training_side

        backend = training_backend(model, clip, vae, enhanced, "Refit Identity")
        nearest_start(identity, enhanced)  # says what does not fit before anything is computed
        photos = check_pictures(image, "Refit Identity")
        method = identity.metadata.method
        recipe = method if method in ID_EA else ID_EA[0]
        config = TrainConfig(
            recipe=recipe, trigger=identity.trigger, steps=steps, seed=seed, resolution=training_side(backend, resolution),
            base_rate=base_rate(backend, recipe),
        )
        masks = face_masks(None, enhanced, photos) if config.resolved().reads_masks else None
        key = content_key("refit 1", content_hash(identity), training_key(backend, enhanced, photos, config, masks))
        learned, note = learn(
            backend, enhanced, photos, config, key, masks=masks, node_id=node_id, preview_every=preview_every, face_model=face_model,
            build=build_from(identity),
        )
        # The notes are not a part of what is kept: the same person may come again with another consent or thumbnail.
        refitted = carried_over(learned, identity)
        count = len(refitted.metadata.config["losses"])
        said = f"{identity.trigger}: from {identity.family.describe()} to {backend.family.describe()} in {count} steps; {note}."
        return {"ui": {"text": [said]}, "result": (refitted, course_chart(refitted, f"{identity.trigger} · refit"))}
