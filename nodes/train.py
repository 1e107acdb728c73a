"""TrainIDEA: learn one person."""
from __future__ import annotations

from .host.lists import one_person
from .learning import JUDGE, PREVIEW_EVERY
from .sockets import CATEGORY, ENHANCED, IDENTITY

RECIPES = ("balanced", "fast", "best", "paper", "released", "sefi")
ATTENTION = {"recipe's own": "", "off": "off", "face word": "face_word", "face mask": "mask"}


class TrainIDEA:
    """Trains an identity on one or a few photographs, inside the graph."""

    DESCRIPTION = (
        "Learns the person as pseudo-tokens (and, by recipe, an adapter and keys and values) while the checkpoint stays frozen. "
        "Cancel keeps the work: queue again and training goes on where it stopped. Stop, in the strip below, ends it with the best so far, and the "
        "graph goes on. A finished training is kept on disk, so the same inputs are never trained twice, not even after a restart."
    )
    CATEGORY = CATEGORY
    FUNCTION = "train"
    OUTPUT_NODE = True
    INPUT_IS_LIST = True
    RETURN_TYPES = (IDENTITY, "IMAGE")
    RETURN_NAMES = ("identity", "chart")
    OUTPUT_TOOLTIPS = ("The learned person, for Apply ID Adapter and Save Identity.", "The loss of every training step, and the likeness where it was measured.")

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "model": ("MODEL", {"tooltip": "The checkpoint to learn on. It is not changed."}),
                "clip": ("CLIP", {"tooltip": "The text encoder of the same checkpoint. It is not changed."}),
                "vae": ("VAE", {"tooltip": "Encodes each photograph once."}),
                "image": ("IMAGE", {"tooltip": (
                    "One or a few photographs of the person, as a batch or as a list of any sizes; of each the largest square around the face is used, or from the middle where no mask says where it is."
                )}),
                "enhanced": (ENHANCED, {"tooltip": "From ID Enhancer, made with the same CLIP."}),
                "trigger": ("STRING", {"default": "<anna>", "tooltip": "The word that stands for the person in your prompts. One word, best in angle brackets."}),
                "recipe": (list(RECIPES), {"default": RECIPES[0], "tooltip": (
                    "balanced: 80 steps, our own; learns the face and leaves the rest of the prompt alone. fast: a quarter of it. best: twice of it. "
                    "paper: 320 steps, everything the paper trains, including the cross-attention's key and value weights, so other prompts change too. "
                    "released: 320 steps, what the authors' script really does. sefi: 320 steps, SeFi-IDE: five stages of the sampling, each with "
                    "words of its own; it needs no face recognizer and changes no weight."
                )}),
                "steps": ("INT", {"default": 0, "min": 0, "max": 10000, "tooltip": "Training steps; 0 = the recipe's own number."}),
                "batch": ("INT", {"default": 0, "min": 0, "max": 64, "tooltip": (
                    "Pictures per step; 0 = the recipe's own. If they do not fit into memory at once, they are taken in smaller portions. With balanced, fast "
                    "and best a step goes as far with any batch and is steadier with a larger one; with the others it grows with the batch, as the released script has it. The node says so."
                )}),
                "lr": ("FLOAT", {"default": 0.0, "min": 0.0, "max": 1.0, "step": 0.0001, "round": False, "tooltip": (
                    "Learning rate per picture of the recipe's own batch; 0 = the recipe's own. Lower it if the loss explodes. balanced, fast and best count "
                    "it in shares of the size of what learns, and make it smaller for wider text encoders."
                )}),
                "resolution": ("INT", {"default": 0, "min": 0, "max": 2048, "step": 8, "tooltip": (
                    "Side of the training pictures in pixels; 0 = 512, 768 for SD 2.x that predicts v, 1024 for SDXL. Smaller is faster and needs less memory."
                )}),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1, "tooltip": "The same seed and inputs give the same identity."}),
            },
            "optional": {
                "masks": ("MASK", {"tooltip": (
                    "Where the face is in each photograph, in their order, from Face Embed. Unconnected: what Face Embed found in these very photographs. "
                    "Read where a recipe weighs the face more than the rest, and by the attention target 'face mask'."
                )}),
                "stages": ("INT", {"default": 0, "min": 0, "max": 20, "tooltip": (
                    "Into how many stages the sampling is divided, each with words of its own for the person (SeFi-IDE); works with every recipe. "
                    "0 = the recipe's own: five for sefi, none for the others."
                )}),
                "attention": (list(ATTENTION), {"default": "recipe's own", "tooltip": (
                    "Teaches the person's word to look at the face, so that the rest of the prompt keeps its place; works with every recipe. "
                    "face word: where the checkpoint itself looks for 'face' (a third slower). face mask: inside the masks of Face Embed. "
                    "recipe's own: face mask for balanced, fast and best, face word for sefi, off for paper and released."
                )}),
                "caption": ("STRING", {"default": "", "multiline": True, "tooltip": (
                    "What else the photographs show, such as: smiling, wearing a blue shirt, in a forest. What is said here is not learned as a part of the "
                    "person. One line for all photographs, or one line for each; a list of texts is one for each."
                )}),
                "preview_every": PREVIEW_EVERY,
                "face_model": JUDGE,
            },
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @one_person("Train Identity", pictures=("image", "masks"), lines=("caption",))
    def train(self, model, clip, vae, image, enhanced, trigger, recipe, steps, batch, lr, resolution, seed, masks=None, stages=0,
              attention="recipe's own", caption="", preview_every=0, face_model=None, node_id=None):
        from ..idea_engine.prompts.trigger import check_trigger
        from ..idea_engine.training.config import TrainConfig
        from .host.images import check_pictures
        from .learning import base_rate, course_chart, face_masks, learn, training_backend, training_key, training_side

        backend = training_backend(model, clip, vae, enhanced, "Train Identity")
        trigger = check_trigger(trigger, backend.word_ids)
        photos = check_pictures(image, "Train Identity")
        config = TrainConfig(
            recipe=recipe, trigger=trigger, steps=steps, batch=batch, lr=lr, seed=seed, stages=stages, attention=ATTENTION[attention],
            captions=_captions(caption), resolution=training_side(backend, resolution),
            base_rate=base_rate(backend, recipe),
        )
        faces = face_masks(masks, enhanced, photos) if config.resolved().reads_masks else None
        identity, note = learn(
            backend, enhanced, photos, config, training_key(backend, enhanced, photos, config, faces), masks=faces, node_id=node_id,
            preview_every=preview_every, face_model=face_model,
        )
        losses = identity.metadata.config["losses"]
        finite = [loss for loss in losses if loss is not None] or [float("nan")]  # a step whose loss was not finite was skipped
        return {"ui": {"text": [f"{trigger}: {len(losses)} steps, loss {finite[0]:.4f} → {finite[-1]:.4f}; {note}."]},
                "result": (identity, course_chart(identity, f"{trigger} · {recipe}"))}


def _captions(caption: str | tuple[str, ...]) -> tuple[str, ...]:
    """One caption for each line that says something; of a list of texts one for each, for each belongs to a photograph, also an empty one."""
    if isinstance(caption, str):
        return tuple(line.strip() for line in caption.splitlines() if line.strip())
    return tuple(" ".join(text.split()) for text in caption)
