"""A folder of ONNX files that finds and recognises faces: known by what its files are, never by their names."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Sequence

from ..errors import FaceModelError
from ..files.file_names import walk
from ..files.foreign_text import shown

DOWNLOADABLE = "buffalo_l"  # insightface's own default pack
DEMO_DETECTION_SIZE = 320  # for the pack of the Portrait World: its faces fill the picture, and its detector was measured at this size
_NON_COMMERCIAL = "non-commercial research only (insightface's terms for its published packs)"
_UNKNOWN = "unknown licence"
# For the licence only. insightface publishes these under one set of terms.
_PUBLISHED_PACKS = ("buffalo_", "antelopev2", "raccoon_")
_PUBLISHED_RECOGNIZERS = ("w600k_r50", "w600k_mbf", "glintr100")
MAX_BYTES = 1 << 30  # of one file; the largest recognizer that is published has 261 MB
_MAX_LISTED = 6  # files in a sentence
_LICENCE_NAMES = ("license", "licence", "model.license")
_LICENCE_LENGTH = 300  # characters that are shown and stored in identity files


@dataclass(frozen=True)
class FacePack:
    """One folder that holds at least a detector and a recognizer.

    Attributes:
        folder: directly holds the files, however deep it was found.
        detector, recognizer: the files insightface will take from it.
        licence: in words.
    """

    folder: Path
    detector: Path
    recognizer: Path
    licence: str


def open_face_pack(folder: Path | str, searched: Sequence[Path] = ()) -> FacePack:
    """Find the pack in ``folder`` or below it (archives often unpack one folder too deep).

    Args:
        folder: where to look.
        searched: more folders to name when nothing is found.

    Raises:
        FaceModelError: there is no folder, no ONNX file, or the detector or the recognizer is missing.
    """
    folder = Path(folder)
    places = onnx_folders(folder)
    tasks = {path: onnx_task(path) for files in places.values() for path in files}
    for place, files in places.items():
        # insightface reads a folder's files in the order of their names and keeps the first of each task.
        first = {tasks[path]: path for path in reversed(files)}
        if "detection" in first and "recognition" in first:
            return FacePack(place, first["detection"], first["recognition"], pack_licence(place, folder, first["recognition"]))
    raise FaceModelError(_missing_sentence(folder, tasks, searched))


def onnx_folders(root: Path) -> dict[Path, list[Path]]:
    """Every folder in or below ``root`` that holds ONNX files → those files; both sorted, the shallowest folder first.

    Linked folders are followed (models often live on another disk), each real folder once.
    """
    found = {}
    for folder, names in walk(root):
        files = [folder / name for name in names if name.lower().endswith(".onnx")]
        if files:
            found[folder] = files
    return dict(sorted(found.items(), key=lambda item: (len(item[0].parts), item[0])))


def onnx_task(path: Path) -> str:
    """``detection``, ``recognition``, ``other`` or ``unreadable``, by the rule of insightface's own router: inputs and outputs."""
    try:
        stat = path.stat()
    except OSError:  # a link to nothing, or deleted just now
        return "unreadable"
    return _onnx_task(str(path), stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _onnx_task(path: str, size: int, modified: int) -> str:
    try:
        import onnx
    except ImportError as error:
        raise FaceModelError(missing_package_sentence("onnx", error)) from error
    if not 0 < size <= MAX_BYTES:
        return "unreadable"
    try:
        graph = onnx.load(path, load_external_data=False).graph
    except Exception:  # protobuf's own error class depends on which of its three implementations is installed
        return "unreadable"
    weights = {tensor.name for tensor in graph.initializer}  # old exporters list weights among the inputs
    inputs = [value for value in graph.input if value.name not in weights]
    if len(graph.output) >= 5:
        return "detection"
    shape = [dim.dim_value for dim in inputs[0].type.tensor_type.shape.dim] if inputs else []
    if len(inputs) == 1 and len(graph.output) == 1 and len(shape) == 4 and shape[2] == shape[3]:
        if shape[2] >= 112 and shape[2] % 16 == 0 and shape[2] != 192:  # 192: landmark models
            return "recognition"
    return "other"


def pack_licence(folder: Path, root: Path, recognizer: Path) -> str:
    """The licence in words: a licence file in the pack wins, then what insightface says of the packs it publishes."""
    for place in (folder, root):
        for path in sorted(place.iterdir()):
            if path.name.lower() in _LICENCE_NAMES or path.stem.lower() in _LICENCE_NAMES:
                text = _licence_text(path)
                if text:
                    return text if len(text) <= _LICENCE_LENGTH else text[:_LICENCE_LENGTH].rsplit(" ", 1)[0] + " …"
    published = any(part.lower().startswith(_PUBLISHED_PACKS) for part in (folder.name, root.name))
    return _NON_COMMERCIAL if published or recognizer.stem.lower() in _PUBLISHED_RECOGNIZERS else _UNKNOWN


def _licence_text(path: Path) -> str:
    """The beginning of a licence file in one harmless line; '' where it cannot be read."""
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8", errors="replace") as file:
            words = file.read(4 * _LICENCE_LENGTH).split()
    except OSError:
        return ""
    return shown(" ".join(words), 4 * _LICENCE_LENGTH)


def missing_package_sentence(package: str, error: Exception) -> str:
    """For a Python package that face recognition needs and that cannot be imported.

    insightface asks pip for onnxruntime; beside an onnxruntime-gpu that would break both, so where one is, pip must not follow.
    """
    import sys

    pip = f'"{sys.executable}" -m pip install'
    try:
        import onnxruntime  # noqa: F401  (whichever of its builds is here stays the only one)

        way = f'{pip} --no-deps "insightface>=2"  and then  {pip} onnx opencv-python scikit-image scipy tqdm requests'
    except ImportError:
        way = f'{pip} "insightface>=2" onnxruntime'
    return (
        f"The Python package {package} cannot be imported ({error}). Load Face Model needs insightface (version 2 or later) and "
        f"onnxruntime: run  {way}  and restart ComfyUI."
    )


def _missing_sentence(folder: Path, tasks: dict[Path, str], searched: Sequence[Path]) -> str:
    places = ", ".join(dict.fromkeys(shown(place) for place in (*searched, folder)))
    listed = [f"{shown(path.relative_to(folder).as_posix(), 60)} ({task})" for path, task in tasks.items()]
    more = f" and {len(listed) - _MAX_LISTED} more" if len(listed) > _MAX_LISTED else ""
    seen = ", ".join(listed[:_MAX_LISTED]) + more or "no .onnx file"
    wanted = {
        "detection": "a face detector with landmarks (SCRFD: an .onnx with nine outputs, such as det_10g.onnx)",
        "recognition": "a face recognizer (ArcFace: an .onnx with a 112×112 input, such as w600k_r50.onnx or glintr100.onnx)",
    }
    absent = [text for task, text in wanted.items() if task not in tasks.values()]
    if absent:
        need = f"Expected {' and '.join(absent)}"
    else:
        need = "The detector and the recognizer lie in different folders; expected both in one"
    return (
        f"No complete face pack was found: {seen}. {need}. Searched with every folder below: {places}. Put a whole insightface pack such "
        f"as {DOWNLOADABLE} there, or turn on allow_download in Load Face Model."
    )
