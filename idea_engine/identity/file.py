"""``anna.safetensors``: one person in one file, whose token part also works in stock ``embedding:anna``."""
from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Mapping

import torch
from torch import Tensor

from ..backends.family import ENCODERS, family_of
from ..errors import IdentityFileError, TriggerError
from ..files.atomic_write import atomic_write
from ..files.file_names import write_advice
from ..files.foreign_text import parsed_json, shown
from ..files.pickle_file import ClaimedTensor
from ..files.tensor_file import describe, open_tensors
from ..prompts.trigger import check_trigger
from .identity import AdapterWeights, Identity, IdentityMetadata, StageTokens
from .operations import named_tensors, rounded

FORMAT_VERSION = 2  # 2 knows the ending; a file without one is still written as 1
MAX_BYTES = 4 << 30  # the recipe 'paper' on SDXL changes 340 M weights (680 MB); everything else is far smaller
MAX_LENGTH = 65536  # of any side of a tensor: the largest there is have 3 × 2048
LARGEST = 65504.0  # the largest number in half precision, in which text encoders and adapters compute
MAX_STACKED = 16  # adapters of a merged identity: each costs one small self-attention per prompt
MAX_STAGES = 100  # of the noise schedule; every prompt is encoded twice for each
MAX_TOKENS = 75  # one chunk of a text encoder without its begin and end marks
# Characters of what a file says of itself: far more than anybody writes, and little enough to be shown and copied.
_LONGEST = {"idea.method": 200, "idea.base_hash": 200, "idea.recognizer": 500, "idea.licence": 5000, "idea.consent": 20_000, "modelspec.thumbnail": 1 << 20}
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def save_identity(identity: Identity, path: Path | str, *, store_face: bool = False) -> Path:
    """Write ``identity`` so that an existing file is either wholly replaced or untouched.

    Args:
        path: where to; ``.safetensors`` is added when missing.
        store_face: also store the face embedding, which is biometric.

    Raises:
        IdentityFileError: the file cannot be written (disk full, no permission), or the identity holds what could not be read again; nothing is
            left behind.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        path = path.with_name(path.name + ".safetensors")
    identity = rounded(identity if store_face else replace(identity, face=None))
    for key, tensor in named_tensors(identity).items():
        check_values(tensor, key, "The identity")
    if identity.adapter is not None and not math.isfinite(identity.adapter.gate):
        raise IdentityFileError(f"The identity has an adapter whose gate is {identity.adapter.gate}; it cannot be used. Train it again with a lower lr.")
    metadata = _metadata(identity)
    unwritable = [key for key, text in metadata.items() if text != text.encode(errors="replace").decode()]
    if unwritable:  # half of a surrogate pair, which no file can hold
        raise IdentityFileError(f"The identity's {unwritable[0]} holds characters that no file can hold: {shown(metadata[unwritable[0]], 60)}. Write it anew.")
    for key, count in _too_long(metadata).items():
        raise IdentityFileError(f"The identity's {key} has {count} characters, expected at most {_LONGEST[key]}. Shorten it.")
    payload = save(named_tensors(identity), metadata=metadata)
    try:
        atomic_write(path, payload)
    except OSError as error:
        raise IdentityFileError(
            f"The identity could not be written to {shown(path.name, 80)}: {error.strerror or shown(error)}. {write_advice(error, path, len(payload))}"
        ) from error
    return path


def load_identity(path: Path | str) -> Identity:
    """Read an identity written by :func:`save_identity`.

    Raises:
        IdentityFileError: the file is missing, truncated, oversized, or not an identity.
    """
    path = Path(path)
    check_file(path)
    try:
        with open_tensors(path) as (metadata, tensors):
            return _from_tensors(tensors, metadata, shown(path.name))
    except (OSError, ValueError) as error:
        raise IdentityFileError(
            f"{shown(path.name)} is truncated or not a safetensors file: {shown(error)}. It may be a broken download or copy: copy it again, or save the "
            "identity again."
        ) from error


def inspect_identity(path: Path | str) -> dict[str, object]:
    """What a file says of itself and holds, for people to read: metadata, tensor shapes, size in bytes."""
    identity = load_identity(path)
    shapes = {name: list(tensor.shape) for name, tensor in named_tensors(identity).items()}
    return {
        "trigger": identity.trigger,
        "family": identity.family.describe(),
        "method": identity.metadata.method,
        "pseudo_tokens": identity.token_count,
        "recognizer": identity.metadata.recognizer,
        "licence": identity.metadata.licence,
        "consent": identity.metadata.consent,
        "config": dict(identity.metadata.config),
        "tensors": shapes,
        "bytes": Path(path).stat().st_size,
    }


def _too_long(metadata: Mapping[str, str]) -> dict[str, int]:
    """Fields that are longer than they may be → their lengths."""
    return {key: len(metadata[key]) for key, most in _LONGEST.items() if len(metadata.get(key, "")) > most}


def check_file(path: Path) -> None:
    """Raises: IdentityFileError: there is no such file, it is empty, or it is far too large."""
    name = shown(path.name)
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError as error:  # deleted just now, a name that is too long, a loop of links
        raise IdentityFileError(f"{name} cannot be opened: {error.strerror or error}.") from error
    if size is None:
        raise IdentityFileError(f"There is no file {name}; the Load Identity node lists the files of models/idea.")
    if size == 0:
        raise IdentityFileError(f"{name} is empty, as a download that broke off leaves it. Copy or download it again.")
    if size > MAX_BYTES:
        raise IdentityFileError(f"{name} has {size / 1e9:.1f} GB, but an identity has at most {MAX_BYTES / 1e9:.0f} GB; this is another kind of file.")


def check_values(tensor: Tensor, key: str, name: str) -> None:
    """Raises: IdentityFileError: a value is not finite, or larger than what text encoders compute with."""
    if not torch.isfinite(tensor).all():
        raise IdentityFileError(f"{name}: the tensor {shown(key, 80)} holds values that are not finite; the identity would make black pictures.")
    if tensor.numel() and float(tensor.abs().max()) > LARGEST:
        raise IdentityFileError(
            f"{name}: the tensor {shown(key, 80)} holds the value {float(tensor.abs().max()):.3g}, expected at most {LARGEST:.0f}, the largest number in "
            "half precision; the identity would make black pictures."
        )


def _metadata(identity: Identity) -> dict[str, str]:
    meta = identity.metadata
    adapter = identity.adapter
    config = {**meta.config, "adapter": None if adapter is None else {"gate": adapter.gate, "scope": adapter.scope}}
    fields = {
        "idea.format_version": str(1 if identity.ending is None else FORMAT_VERSION),
        "idea.method": meta.method,
        "idea.config": json.dumps(config, sort_keys=True),
        "idea.base_family": identity.family.name,
        "idea.base_hash": meta.base_hash,
        "idea.recognizer": meta.recognizer,
        "idea.licence": meta.licence,
        "idea.trigger": meta.trigger,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2", "sdxl": "stable-diffusion-xl-v1-base"}[identity.family.name]
        + "/textual-inversion",
        "modelspec.implementation": "idea",
        "modelspec.title": meta.trigger.strip("<>"),
        "modelspec.trigger_phrase": meta.trigger,
    }
    if meta.consent:
        fields["idea.consent"] = meta.consent
    if meta.thumbnail:
        fields["modelspec.thumbnail"] = meta.thumbnail
    return fields


def _from_tensors(tensors: Mapping[str, ClaimedTensor], metadata: Mapping[str, str], name: str) -> Identity:
    reader = _Reader(dict(tensors), name)
    tokens = {key: reader.take(key, (None, None)) for key in ENCODERS if key in tensors}
    family = family_of({key: rows.shape[1] for key, rows in tokens.items()})
    if "idea.format_version" not in metadata or family is None:
        raise IdentityFileError(
            f"{name} holds no identity: expected pseudo-tokens under clip_l, clip_h or clip_l + clip_g and the idea.* metadata, found "
            f"{shown(', '.join(sorted(tensors)[:4])) or 'no tensors'}. A plain embedding or a LoRA belongs into models/embeddings or models/loras."
        )
    version = metadata["idea.format_version"]
    if not version.isdecimal() or len(version) > 9 or int(version) > FORMAT_VERSION:
        raise IdentityFileError(f"{name} was written in format '{shown(version, 20)}', but this version of the pack reads up to {FORMAT_VERSION}. Update the pack.")
    count = {rows.shape[0] for rows in tokens.values()}
    if len(count) != 1 or not 1 <= max(count) <= MAX_TOKENS:
        raise IdentityFileError(f"{name} holds {sorted(count)} pseudo-tokens, but expected the same number, 1 to {MAX_TOKENS}, for every encoder.")
    n, d = count.pop(), family.context_width
    try:
        for key, number in _too_long(metadata).items():
            raise ValueError(f"{key} has {number} characters, expected at most {_LONGEST[key]}")
        config = parsed_json(metadata.get("idea.config", "{}"))
        described = config.pop("adapter", None)
        trigger = check_trigger(metadata.get("idea.trigger", ""))
        adapter = None
        if described is not None:
            attention = {
                "in_proj_weight": (3 * d, d), "in_proj_bias": (3 * d,), "out_proj.weight": (d, d), "out_proj.bias": (d,),
            }
            # A merged identity stacks adapters: one more dimension in front of each.
            stacked = tensors["adapter.features"].shape[:1] if "adapter.features" in tensors and len(tensors["adapter.features"].shape) == 3 else ()
            if stacked and not 1 <= stacked[0] <= MAX_STACKED:
                raise ValueError(f"{stacked[0]} stacked adapters, expected 1 to {MAX_STACKED}")
            adapter = AdapterWeights(
                features=reader.take("adapter.features", (*stacked, n, d)),
                attention={key: reader.take(f"adapter.attention.{key}", (*stacked, *shape)) for key, shape in attention.items()},
                gate=float(described["gate"]),
                scope=str(described["scope"]),
            )
            if adapter.scope not in ("prompt", "tokens"):
                raise ValueError(f"unknown adapter scope {shown(adapter.scope, 40)}")
            if not math.isfinite(adapter.gate):
                raise ValueError(f"the adapter's gate is {adapter.gate}")
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, TriggerError) as error:
        raise IdentityFileError(f"The description inside {name} is damaged ({shown(error)}). Save the identity again.") from error
    blocks = {kind: reader.blocks(kind, shape) for kind, shape in (("key", (n, d)), ("value", (n, d)), ("key_weight", (None, d)), ("value_weight", (None, d)))}
    return Identity(
        family=family,
        tokens=tokens,
        anchor={key: reader.take(f"anchor.{key}", tuple(rows.shape)) for key, rows in tokens.items() if f"anchor.{key}" in tensors},
        adapter=adapter,
        ending=reader.take("ending", (d,)) if "ending" in tensors else None,
        key_offsets=blocks["key"],
        value_offsets=blocks["value"],
        key_weights=blocks["key_weight"],
        value_weights=blocks["value_weight"],
        face=reader.take("face.embedding", (512,)) if "face.embedding" in tensors else None,
        stages=reader.stages(tokens),
        metadata=IdentityMetadata(
            trigger=trigger,
            method=metadata.get("idea.method", ""),
            family=family.name,
            base_hash=metadata.get("idea.base_hash", ""),
            recognizer=metadata.get("idea.recognizer", ""),
            licence=metadata.get("idea.licence", ""),
            config=config,
            consent=metadata.get("idea.consent", ""),
            thumbnail=metadata.get("modelspec.thumbnail", ""),
        ),
    )


class _Reader:
    """Takes tensors of expected shape out of an untrusted file."""

    def __init__(self, tensors: dict[str, ClaimedTensor], name: str):
        self.tensors, self.name = tensors, name

    def take(self, key: str, shape: tuple[int | None, ...]) -> Tensor:
        claimed = self.tensors.get(key)
        wanted = "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
        if claimed is None:
            raise IdentityFileError(f"{self.name} lacks the tensor {key} {wanted}; it is incomplete. Save the identity again.")
        fits = len(claimed.shape) == len(shape) and all(want in (None, got) for want, got in zip(shape, claimed.shape))
        if not fits or claimed.dtype not in _DTYPES or max(claimed.shape, default=0) > MAX_LENGTH:
            raise IdentityFileError(f"{self.name}: the tensor {key} is {describe(claimed)}, expected 16 or 32 bit floating point {wanted}.")
        tensor = claimed.read()
        check_values(tensor, key, self.name)
        return tensor

    def blocks(self, kind: str, shape: tuple[int | None, ...]) -> dict[int, Tensor]:
        found = {}
        for key in self.tensors:
            parts = key.split(".")
            if len(parts) == 3 and parts[0] == "kv" and parts[1].isdecimal() and parts[2] == kind:
                if len(parts[1]) > 4:
                    raise IdentityFileError(f"{self.name} has a block numbered {shown(parts[1], 20)}, expected 0 to 9999. Save the identity again.")
                found[int(parts[1])] = self.take(key, shape)
        return dict(sorted(found.items()))

    def stages(self, tokens: Mapping[str, Tensor]) -> tuple[StageTokens, ...]:
        """Stage tokens, each of the shape of the plain ones; every stage from 0 on must be there, whole."""
        numbers = {int(parts[1]) for key in self.tensors if len(parts := key.split(".")) == 4 and parts[0] == "stages" and parts[1].isdecimal() and len(parts[1]) < 10}
        if numbers and (max(numbers) >= MAX_STAGES or numbers != set(range(len(numbers)))):
            raise IdentityFileError(
                f"{self.name} holds the stages {', '.join(map(str, sorted(numbers)[:9]))}, but expected all from 0 on and at most {MAX_STAGES}. "
                "Save the identity again."
            )

        def rows(stage: int, kind: str) -> dict[str, Tensor]:
            return {key: self.take(f"stages.{stage}.{kind}.{key}", tuple(plain.shape)) for key, plain in tokens.items()}

        return tuple(StageTokens(rows(stage, "k"), rows(stage, "v")) for stage in range(len(numbers)))
