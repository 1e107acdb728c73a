"""Every error a user can meet, by name.

The message of each is a sentence for the artist: what was found, what was expected, and which node or option mends it.
Code may catch a class; nobody parses a message.
"""
from __future__ import annotations

from typing import Sequence


class IdeaError(Exception):
    """Base of every error this project raises on purpose."""


class FaceNotFoundError(IdeaError):
    """A photograph holds no face, or not the face that was asked for."""


class FaceModelError(IdeaError):
    """The face recognition package or its model files are missing or unusable."""


class BadImageError(IdeaError):
    """A picture cannot be used: wrong shape, too small, or not finite."""


class ListError(IdeaError):
    """A node that is about one person got several values for what there can only be one of."""


class NamesError(IdeaError):
    """The list of anchor names is empty or holds nothing the tokenizer knows."""


class TriggerError(IdeaError):
    """The placeholder word is empty, has spaces, or already means something in prompts."""


class UnsupportedModelError(IdeaError):
    """The diffusion model belongs to a family this project does not support."""


class UnsupportedHostError(IdeaError):
    """This ComfyUI does something in another way than is understood here."""


class FamilyMismatchError(IdeaError):
    """An identity was made for another family of models."""


class IdentityFileError(IdeaError):
    """A file is not an identity: truncated, foreign, oversized or unsafe."""


class EnhancerFileError(IdeaError):
    """A file is not an enhancer: truncated, foreign, oversized or damaged."""


class TrainingError(IdeaError):
    """Training cannot go on: the loss is not finite, or memory does not suffice even for one picture."""


class PromptMismatchError(IdeaError):
    """A prompt cannot be looked at: it has no words, or is not the one that the sampler got."""


class EvaluationError(IdeaError):
    """There is nothing to score, or what is to be compared was measured by different recognizers."""


class FaceCLIPFileError(IdeaError):
    """A file is not a FaceCLIP encoder: truncated, foreign, or with keys missing or left over.

    Attributes:
        missing, unexpected, misshapen: every key in question; the sentence names only the first of each.
    """

    def __init__(self, sentence: str, missing: Sequence[str] = (), unexpected: Sequence[str] = (), misshapen: Sequence[str] = ()):
        super().__init__(sentence)
        self.missing, self.unexpected, self.misshapen = tuple(missing), tuple(unexpected), tuple(misshapen)


class FaceCLIPInputError(IdeaError):
    """An option of FaceCLIP Encode does not agree with what is connected."""


class MergeError(IdeaError):
    """Identities cannot be merged: of different families, recipes or shapes, or with weights that cancel."""
