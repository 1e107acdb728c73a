"""SaveIdentity and LoadIdentity: one person, one file."""
from __future__ import annotations

from .sockets import CATEGORY, IDENTITY, IDENTITY_OR_ENHANCED


class SaveIdentity:
    """Writes an identity into models/idea."""

    DESCRIPTION = (
        "Saves the person as one safetensors file in models/idea. The prompt embedding:NAME of stock text nodes reads its pseudo-tokens from "
        "the same file. The face embedding is biometric and only stored if you ask."
    )
    CATEGORY = CATEGORY
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("path",)
    OUTPUT_TOOLTIPS = ("Where the file was written.",)

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {
                "identity": (IDENTITY_OR_ENHANCED, {"tooltip": "From Train Identity or Load Identity."}),
                "filename": ("STRING", {"default": "anna", "tooltip": "Name of the file in models/idea, with or without .safetensors. An existing file is replaced."}),
            },
            "optional": {
                "consent": ("STRING", {"default": "", "tooltip": "A note kept in the file: who agreed to what, and when."}),
                "store_face": ("BOOLEAN", {"default": False, "tooltip": "Also store the face embedding. It is biometric data of the person."}),
                "thumbnail": ("IMAGE", {"tooltip": "A picture to show beside the file in browsers of models."}),
            },
        }

    def save(self, identity, filename, consent="", store_face=False, thumbnail=None):
        from dataclasses import replace

        from ..idea_engine.errors import IdentityFileError
        from ..idea_engine.files.file_size import shown_size
        from ..idea_engine.identity.file import save_identity
        from ..idea_engine.identity.operations import as_identity
        from .host.images import to_data_url
        from .host.paths import new_identity_path

        identity = as_identity(identity)
        metadata = replace(
            identity.metadata,
            consent=consent or identity.metadata.consent,
            thumbnail=to_data_url(thumbnail) if thumbnail is not None else identity.metadata.thumbnail,
        )
        path = new_identity_path(filename)
        try:
            path = save_identity(replace(identity, metadata=metadata), path, store_face=store_face)
        except IdentityFileError as error:
            raise IdentityFileError(f"{error} Then queue Save Identity again: as long as ComfyUI runs, the identity is not lost.") from error
        said = f"Saved {path.name} ({shown_size(path.stat().st_size)}). In prompts: {identity.trigger}"
        if store_face and identity.face is None:
            said += "\nThe face embedding was not stored: this identity has none, because it was loaded from a file without one."
        return {"ui": {"text": [said]}, "result": (str(path),)}


class LoadIdentity:
    """Reads an identity from models/idea."""

    DESCRIPTION = (
        "Loads a person from models/idea: a file of Save Identity, or an embedding of another tool (learned_embeds.bin of CrossInit and "
        "ID-EA, A1111 and kohya embeddings)."
    )
    CATEGORY = CATEGORY
    FUNCTION = "load"
    RETURN_TYPES = (IDENTITY, "STRING")
    RETURN_NAMES = ("identity", "info")
    OUTPUT_TOOLTIPS = ("For Apply ID Adapter.", "What the file says of itself: trigger, model family, recipe, licence, consent.")

    @classmethod
    def INPUT_TYPES(cls):
        from .host.paths import identity_files

        return {
            "required": {"identity": (identity_files(), {"tooltip": "A file in models/idea."})},
            "optional": {"trigger": ("STRING", {"default": "", "tooltip": "Another trigger word than the file's own; empty = its own."})},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, identity):
        from ..idea_engine.errors import IdeaError
        from .host.paths import identity_path

        if identity is None:  # connected: known when the graph runs
            return True
        try:
            identity_path(identity)
        except IdeaError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, identity, trigger=""):
        from ..idea_engine.files.fingerprint import file_hash
        from .host.paths import identity_path

        if identity is None:  # connected: whether its file changed cannot be asked before the graph runs
            return float("nan")
        try:
            return file_hash(identity_path(identity))
        except OSError:  # deleted just now; loading says so
            return "missing"

    def load(self, identity, trigger=""):
        from ..idea_engine.identity.foreign_files import read_identity
        from ..idea_engine.prompts.trigger import check_trigger
        from .host.paths import identity_path

        loaded = read_identity(identity_path(identity))
        if trigger:
            loaded = loaded.with_trigger(check_trigger(trigger))
        info = describe(loaded)
        return {"ui": {"text": [info]}, "result": (loaded, info)}


def describe(identity) -> str:
    """A few lines about an identity, for people; nothing that a file says can look like a line of ours."""
    from ..idea_engine.files.foreign_text import shown

    meta = identity.metadata
    lines = {
        "Trigger": identity.trigger,
        "For": identity.family.describe(),
        "Made by": meta.method,
        "Pseudo-tokens": str(identity.token_count),
        "Stages": str(len(identity.stages) or ""),
        "Face recognizer": meta.recognizer,
        "Licence of the face model": meta.licence,
        "Consent": meta.consent,
    }
    return "\n".join(f"{label}: {shown(value, 1000)}" for label, value in lines.items() if value)
