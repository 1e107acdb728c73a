"""A person at once: photographs and an enhancer → an identity, with nothing trained."""
from __future__ import annotations

import torch

from ..backends.base import DiffusionBackend
from ..errors import FamilyMismatchError
from ..faces.embedding import FaceEmbedding
from ..faces.head import as_pixels
from ..identity.anchor import with_start
from ..identity.enhanced import IDAnchor
from ..identity.identity import Identity, IdentityMetadata
from ..identity.merge import combined_licence
from ..identity.operations import DEFAULT_TRIGGER, rounded
from .file import EnhancerFile

METHOD = "enhanced"  # in the identity's metadata


@torch.no_grad()
def person_at_once(file: EnhancerFile, backend: DiffusionBackend, face: FaceEmbedding, anchor: IDAnchor, trigger: str = DEFAULT_TRIGGER) -> Identity:
    """The identity that the enhancer reads in the photographs.

    Args:
        backend: only its text half is asked; see :meth:`~idea_engine.enhancer.file.EnhancerLabel.check_fits`.
        anchor: of the names; says only how many pseudo-tokens a person has.

    Raises:
        FamilyMismatchError: the file was learned with another text encoder or recognizer.
    """
    name, notes = file.label.name, file.label.notes
    file.label.check_fits(backend, face.recognizer)
    if face.heads is None:
        raise FamilyMismatchError(f"The enhancer {name} looks at the whole head, which this face embedding does not hold. Run Face Embed again.")
    network = file.network
    parts = network(face.vectors[None].float(), face.weights[None].float(), as_pixels(face.heads)[None])
    start = with_start(anchor, backend, notes.start).start
    metadata = IdentityMetadata(
        trigger=trigger, method=METHOD, family=backend.family.name, base_hash=backend.text_hash, recognizer=face.recognizer,
        licence=combined_licence([face.licence, notes.licence]), config={"enhancer": {"name": name, "step": notes.step}},
    )
    return rounded(Identity(
        family=backend.family, tokens=start, anchor=start, metadata=metadata, ending=parts.ending[0], face=face.mean(),
        key_offsets=dict(enumerate(parts.keys[:, 0])), value_offsets=dict(enumerate(parts.values[:, 0])),
    ))
