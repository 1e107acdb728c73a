"""An enhancer in one file, and whether it fits the text encoder and the recognizer at hand."""
from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Iterator, Mapping

import torch
from torch import Tensor

from ..backends.base import DiffusionBackend
from ..backends.family import ModelFamily
from ..backends.templates import prompt_inputs
from ..errors import EnhancerFileError, FamilyMismatchError
from ..files.atomic_write import atomic_write
from ..files.file_size import shown_size
from ..files.foreign_text import parsed_json, shown
from ..files.pickle_file import ClaimedTensor
from ..files.tensor_file import open_tensors
from .network import Enhancer, EnhancerSizes

FORMAT_VERSION = 1
MAX_BYTES = 1 << 30  # one for SDXL has 60 MB
_LARGEST = 1 << 14  # of any size that a file names; SDXL's text condition has a width of 2048
_SENTENCE = "a photo of a person"  # what two text encoders are told apart by
_ALIKE = 0.02  # relative difference of what they make of it: half precision stays below, another training of the encoder does not
_READING = "text_encoder.reading"
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True)
class EnhancerNotes:
    """What a file says of itself.

    Attributes:
        family: name of the model family, and its encoders' widths in ``encoders``.
        recognizer: name and content hash of the recognizer whose embeddings it reads.
        licence: of the file. learned_from: the people it learned from, in words.
        start: the plain word that its people stand in for.
        step: of its training. figures: measured on people it has never seen, by name.
    """

    family: str
    encoders: Mapping[str, int]
    recognizer: str
    licence: str = ""
    learned_from: str = ""
    start: str = "person"
    step: int = 0
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EnhancerLabel:
    """What a file is for: read without its weights.

    Attributes:
        name: for sentences.
        reading: (d,) what the text encoder it was learned with makes of a fixed sentence, see :func:`text_reading`.
    """

    name: str
    notes: EnhancerNotes
    reading: Tensor

    def check_fits(self, backend: DiffusionBackend, recognizer: str) -> None:
        """Raises: FamilyMismatchError: the file was learned with another text encoder or another recognizer."""
        mend = "set enhancer in the ID Enhancer node to automatic or names only"
        family = ModelFamily(self.notes.family, self.notes.encoders)
        if (family.name, dict(family.encoders)) != (backend.family.name, dict(backend.family.encoders)):
            raise FamilyMismatchError(
                f"The enhancer {self.name} was learned with {family.describe()}, but the connected CLIP is {backend.family.describe()}. "
                f"Load a checkpoint of that family, or {mend}."
            )
        if recognizer != self.notes.recognizer:
            raise FamilyMismatchError(
                f"The enhancer {self.name} reads faces as the recognizer {self.notes.recognizer} measures them, but Face Embed used "
                f"{recognizer or 'an unknown one'}. Choose the face pack with that recognizer in Load Face Model, or {mend}."
            )
        if difference(text_reading(backend), self.reading) > _ALIKE:
            raise FamilyMismatchError(
                f"The enhancer {self.name} was learned with another text encoder than the connected CLIP's: the same words mean something else to it. "
                f"Load the checkpoint that it was made for, without Clip Skip, or {mend}."
            )

    def fits(self, backend: DiffusionBackend, recognizer: str) -> bool:
        """Whether :meth:`check_fits` has nothing to say."""
        try:
            self.check_fits(backend, recognizer)
        except FamilyMismatchError:
            return False
        return True


@dataclass(frozen=True)
class EnhancerFile:
    """An opened file; ``network`` in eval mode, without gradients, float32 on the CPU."""

    label: EnhancerLabel
    network: Enhancer


@torch.no_grad()
def text_reading(backend: DiffusionBackend) -> Tensor:
    """(d,) float32: what a text encoder makes of a fixed sentence, at its end mark, after the whole sentence was read.

    It says which encoder it is in every host and precision, where the names and the rounding of the weights differ.
    """
    prompt = backend.tokenize(_SENTENCE, "", 0)
    return backend.encode_text(prompt_inputs(backend, [prompt], {}), [prompt.end]).context[0, prompt.end].float().cpu()


def difference(one: Tensor, other: Tensor) -> float:
    """Relative distance of two readings; those of different widths are as far as can be."""
    return float((one - other).norm() / other.norm().clamp_min(1e-12)) if one.shape == other.shape else float("inf")


def save_enhancer(network: Enhancer, notes: EnhancerNotes, reading: Tensor, path: Path | str) -> Path:
    """Write one, in float16; an existing file is replaced wholly or left as it was.

    Raises:
        EnhancerFileError: the file cannot be written.
    """
    from safetensors.torch import save

    path = Path(path)
    tensors = {name: tensor.detach().to("cpu", torch.float16).contiguous() for name, tensor in network.state_dict().items()}
    tensors[_READING] = reading.detach().to("cpu", torch.float32).contiguous()
    described = {"idea.enhancer": str(FORMAT_VERSION), "idea.notes": json.dumps(asdict(notes), sort_keys=True), "idea.sizes": json.dumps(asdict(network.sizes))}
    try:
        atomic_write(path, save(tensors, metadata={**described, "idea.licence": notes.licence, "licence": notes.licence}))
    except OSError as error:
        raise EnhancerFileError(f"The enhancer could not be written to {path.name}: {error.strerror or error}. Free some space or choose another folder.") from error
    return path


def read_label(path: Path | str) -> EnhancerLabel:
    """What a file of :func:`save_enhancer` is for; its weights are not read.

    Raises:
        EnhancerFileError: see :func:`load_enhancer`.
    """
    with _opened(Path(path)) as (label, _, _):
        return label


def load_enhancer(path: Path | str) -> EnhancerFile:
    """Read a file of :func:`save_enhancer`.

    Raises:
        EnhancerFileError: it is missing, truncated, oversized or damaged, or holds something else.
    """
    with _opened(Path(path)) as (label, sizes, tensors), torch.inference_mode(False):
        with torch.device("meta"):
            network = Enhancer(sizes, torch.zeros(sizes.count, sizes.width), torch.zeros(sizes.names, sizes.width))
        expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
        odd = [name for name in sorted({*expected, *tensors}) if name not in expected or name not in tensors or not _is(tensors[name], expected[name])]
        if odd:
            raise EnhancerFileError(
                f"{shown(Path(path).name)} is damaged: {shown(', '.join(odd[:4]))} is missing, unknown or of another shape than the file says. Copy it again."
            )
        read = {name: tensor.read().float() for name, tensor in tensors.items()}
        if not all(torch.isfinite(tensor).all() for tensor in read.values()):
            raise EnhancerFileError(f"{shown(Path(path).name)} holds numbers that are not finite; its people would make black pictures. Copy it again.")
        network.load_state_dict(read, assign=True)
    return EnhancerFile(label, network.train(False).requires_grad_(False))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[EnhancerLabel, EnhancerSizes, dict[str, ClaimedTensor]]]:
    """What the file is for, its sizes, and its weights, not yet read."""
    name = shown(path.name)
    if not path.is_file():
        raise EnhancerFileError(f"There is no enhancer {name}. Put it into models/idea/enhancers, or set enhancer in the ID Enhancer node to automatic.")
    if path.stat().st_size > MAX_BYTES:
        raise EnhancerFileError(f"{name} has {shown_size(path.stat().st_size)}, but an enhancer has at most {shown_size(MAX_BYTES)}; this is another kind of file.")
    try:
        with open_tensors(path) as (metadata, tensors):
            notes, sizes = _described(metadata, name)
            reading = tensors.pop(_READING, None)
            if reading is None or not _is(reading, (sizes.width,)):
                raise EnhancerFileError(f"{name} is damaged: it does not say which text encoder it was learned with ({_READING}). Copy it again.")
            yield EnhancerLabel(shown(path.stem), notes, reading.read().float()), sizes, tensors
    except (OSError, ValueError) as error:
        raise EnhancerFileError(f"{name} is not a complete safetensors file: {shown(error)}. It may be a broken download or copy: copy it again.") from error


def _is(claimed: ClaimedTensor, shape: tuple[int, ...]) -> bool:
    return claimed.shape == shape and claimed.dtype in _DTYPES


def _described(metadata: Mapping[str, str], name: str) -> tuple[EnhancerNotes, EnhancerSizes]:
    if "idea.enhancer" not in metadata:
        raise EnhancerFileError(f"{name} is no enhancer: it lacks the idea.enhancer metadata. Files of people belong into Load Identity.")
    if metadata["idea.enhancer"] != str(FORMAT_VERSION):
        raise EnhancerFileError(
            f"{name} was written in format {shown(metadata['idea.enhancer'])}, but this version of the pack reads {FORMAT_VERSION}. Update the pack."
        )
    try:
        told = parsed_json(metadata["idea.notes"])
        notes = EnhancerNotes(**{entry.name: told[entry.name] for entry in fields(EnhancerNotes) if entry.name in told})
        shape = parsed_json(metadata["idea.sizes"])
        sizes = EnhancerSizes(**{entry.name: shape[entry.name] for entry in fields(EnhancerSizes)})
        ModelFamily(notes.family, notes.encoders).describe()
        if sum(notes.encoders.values()) != sizes.width or not all(isinstance(size, int) and 0 < size <= _LARGEST for size in asdict(sizes).values()):
            raise ValueError(f"sizes {shape}")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise EnhancerFileError(f"The description inside {name} is damaged ({shown(error)}). Copy the file again.") from error
    return notes, sizes
