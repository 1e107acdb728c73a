"""RefitIdentity: a person moved to another base model."""
from __future__ import annotations

from .sockets import CATEGORY, ENHANCED, IDENTITY


ID_EA = ("fast", "paper", "released")  # what starts from one row per pseudo-token; identities of other recipes go on as the first


class RefitIdentity:
    """A short training on a new checkpoint that starts where the old identity ended."""

    DESCRIPTION = (
        "Brings an identity to another base model: 25 steps on the new checkpoint, from the nearest start that the old identity gives. Between SD 1.x and "
        "SDXL, and between checkpoints of one family, what the shared text encoder learned is kept."
    )
    CATEGORY = CATEGORY
    FUNCTION = "refit"
    OUTPUT_NODE = True
    RETURN_TYPES = (IDENTITY, "IMAGE")
    RETURN_NAMES = ("identity", "chart")
    OUTPUT_TOOLTIPS = ("The person for the new checkpoint, for Apply ID Adapter and Save Identity.", "The loss of every training step.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "identity": (IDENTITY, {"tooltip": "The person as learned on another model, from Load Identity or Train Identity."}),
                "model": ("MODEL", {"tooltip": "The new checkpoint. It is not changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder of the new checkpoint. It is not changed."}),
                "vae": ("VAE", {"tooltip": "The new checkpoint's VAE; encodes each photograph once."}),
                "image": ("IMAGE", {"tooltip": "One or a few photographs of the person."}),
                "enhanced": (ENHANCED, {"tooltip": "From ID Enhancer, made with the new checkpoint's CLIP."}),
                "steps": ("INT", {"default": 25, "min": 1, "max": 10000, "tooltip": "Training steps. 25 are enough where a text encoder is shared."}),
                "resolution": ("INT", {"default": 0, "min": 0, "max": 2048, "step": 8, "tooltip": "Side of the training pictures in pixels; 0 = 512, and 1024 for SDXL."}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "The same seed and inputs give the same identity."}),
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    def refit(self, identity, model, clip, vae, image, enhanced, steps, resolution, seed, node_id=None):
        from ..idea_engine.chart import loss_chart
        from ..idea_engine.checkpoint import Checkpoint
        from ..idea_engine.errors import FamilyMismatchError
        from ..idea_engine.fingerprint import content_key
        from ..idea_engine.identity import content_hash
        from ..idea_engine.refit import build_from, carried_over, nearest_start
        from ..idea_engine.train import TrainConfig, train
        from .host.backend import ComfyBackend
        from .host.images import check_images, to_image
        from .host.paths import training_cache
        from .host.progress import TrainingProgress
        from .train import _RESOLUTION, _SDXL_RESOLUTION, _content_key, _summary

        backend = ComfyBackend(model, clip, vae)
        if enhanced.family != backend.family:
            raise FamilyMismatchError(
                f"The ID Enhancer was connected to a CLIP of {enhanced.family.describe()}, Refit Identity to one of {backend.family.describe()}. "
                "Connect the new checkpoint's CLIP to both."
            )
        nearest_start(identity, enhanced)  # says what does not fit before anything is computed
        photos = check_images(image, "Refit Identity")
        method = identity.metadata.method
        config = TrainConfig(
            recipe=method if method in ID_EA else ID_EA[0], trigger=identity.trigger, steps=steps, seed=seed,
            resolution=resolution or (_SDXL_RESOLUTION if backend.family.name == "sdxl" else _RESOLUTION),
        )
        key = content_key("refit 1", content_hash(identity), _content_key(backend, enhanced, photos, config))
        refitted, report = train(
            backend, enhanced, list(photos), config, on_step=TrainingProgress(node_id, config.resolved().steps, model.model.latent_format),
            checkpoint=Checkpoint(training_cache() / f"{key}.partial"), build=build_from(identity),
        )
        refitted = carried_over(refitted, identity)
        said = f"{identity.trigger}: from {identity.family.describe()} to {backend.family.describe()} in {len(report.losses)} steps; {_summary(report)}."
        return {"ui": {"text": [said]}, "result": (refitted, to_image(loss_chart(report.losses, title=f"{identity.trigger} · refit")))}
