"""The face encoder that runs insightface packs, through insightface's own FaceAnalysis."""
from __future__ import annotations

import contextlib
import io
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Sequence

import numpy as np

from ..errors import FaceModelError
from ..files.fingerprint import file_hash
from ..files.foreign_text import shown
from .embedding import FACE_EMBEDDING_WIDTH
from .execution_provider import choose_provider
from .pack import FacePack, missing_package_sentence, open_face_pack
from .search import DetectedFace

DETECTION_THRESHOLD = 0.5  # insightface's own


class InsightFaceEncoder:
    """A :class:`idea_engine.faces.embed.FaceEncoder` over one face pack.

    Attributes:
        pack: the files it runs.
        recognizer: ``w600k_r50:1a2b3c4d``, name and content hash of the recognition file.
        licence: of the pack, in words.
        detection_size: side in pixels to which photographs are fitted.
        providers: onnxruntime's names, the one in use first.
    """

    def __init__(self, pack: FacePack, providers: Sequence[str], detection_size: int):
        analysis_class = import_face_analysis()
        self.pack, self.detection_size = pack, detection_size
        self.licence = pack.licence
        try:
            with _quiet():
                analysis = analysis_class(str(pack.folder), allowed_modules=["detection", "recognition"], providers=list(providers))
                analysis.prepare(ctx_id=0, det_thresh=DETECTION_THRESHOLD, det_size=(detection_size, detection_size))
            self._detector, self._recognizer = analysis.models["detection"], analysis.models["recognition"]
        except Exception as error:  # onnxruntime and protobuf raise classes of their own
            raise FaceModelError(
                f"insightface cannot load the face pack in {pack.folder}: {shown(error)}. A file of it may be damaged: copy the pack again."
            ) from error
        if not getattr(self._detector, "use_kps", False):
            raise FaceModelError(
                f"The detector {pack.detector.name} finds no landmarks, and a face cannot be aligned without. Expected an SCRFD detector "
                f"with nine outputs, such as det_10g.onnx, in {pack.folder}."
            )
        self.providers = tuple(self._detector.session.get_providers())
        recognizer_file = Path(self._recognizer.model_file)
        self.recognizer = f"{recognizer_file.stem}:{_content_hash(recognizer_file, recognizer_file.stat().st_mtime_ns)}"

    def detect(self, picture: np.ndarray, size: int) -> list[DetectedFace]:
        """(H, W, 3) uint8 RGB → upright faces, in pixels of the picture; it is fitted into size × size first."""
        if min(picture.shape[:2]) * size < max(picture.shape[:2]):  # fitted, it would be thinner than a pixel
            return []
        try:
            boxes, landmarks = self._detector.detect(_bgr(picture), input_size=(size, size))
            found = np.concatenate([boxes[:, :5], landmarks.reshape(-1, 10)], 1).astype(np.float32)
        except Exception as error:  # numpy's, where outputs come in another order or shape; onnxruntime's own, where memory is short
            raise FaceModelError(
                f"The detector {self.pack.detector.name} failed on a picture of {picture.shape[1]}×{picture.shape[0]} pixels ({shown(error, 120)}). Expected an "
                "SCRFD detector with nine outputs, such as det_10g.onnx. Choose another pack in Load Face Model, or set its provider to CPU."
            ) from error
        return [DetectedFace(row[:4], row[5:].reshape(5, 2), float(row[4])) for row in found if np.isfinite(row).all()]

    def embed(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """F aligned (112, 112, 3) uint8 RGB crops → (F, 512) float32, unit length.

        Raises:
            FaceModelError: the recognizer gives vectors of another width, or none.
        """
        # One by one: a recognizer exported for a batch of one is common.
        try:
            rows = np.concatenate([self._recognizer.get_feat(_bgr(crop)).reshape(1, -1) for crop in crops]).astype(np.float32)
        except Exception as error:
            raise FaceModelError(
                f"The recognizer {self.pack.recognizer.name} failed ({shown(error, 120)}). Choose another pack in Load Face Model, or set its provider to CPU."
            ) from error
        if rows.shape[1] != FACE_EMBEDDING_WIDTH:
            raise FaceModelError(
                f"The recognizer {self.pack.recognizer.name} gives {rows.shape[1]} numbers per face, expected {FACE_EMBEDDING_WIDTH}. "
                "Choose another pack in Load Face Model."
            )
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or lengths.min() < 1e-6:
            raise FaceModelError(
                f"The recognizer {self.pack.recognizer.name} gave no usable numbers on {self.providers[0]}. Set provider in Load Face Model to CPU."
            )
        return rows / lengths


def load_face_model(folder: Path | str, provider: str = "auto", detection_size: int = 640, searched: Sequence[Path] = ()) -> InsightFaceEncoder:
    """Open the face pack in or below ``folder``.

    Args:
        provider: one of :data:`idea_engine.faces.execution_provider.PROVIDERS`.
        detection_size: multiple of 32; larger finds smaller faces and takes longer.
        searched: more folders to name when nothing is found.

    Raises:
        FaceModelError: insightface is missing, the pack is not complete, or the provider does not work.
    """
    if detection_size % 32 or detection_size < 64:
        raise FaceModelError(f"detection_size is {detection_size}, expected a multiple of 32 from 64 on. Change it in Load Face Model.")
    import_face_analysis()
    return InsightFaceEncoder(open_face_pack(folder, searched), choose_provider(provider), detection_size)


def download_face_pack(name: str, root: Path | str) -> Path:
    """Let insightface download its pack ``name`` below ``root``; only ever called when the user asked for it.

    Returns:
        The folder, ``root/models/name``.

    Raises:
        FaceModelError: it cannot be downloaded; nothing half-written is left to be mistaken for a pack.
    """
    import_face_analysis()
    import shutil

    from insightface.utils import ensure_available

    folder = Path(root) / "models" / name
    fresh = not folder.exists()
    try:
        with _quiet():
            ensure_available("models", name, root=str(root))
    except Exception as error:  # requests, zipfile and the file system each raise their own
        (folder.parent / f"{name}.zip").unlink(missing_ok=True)
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        raise FaceModelError(
            f"The face pack {name} could not be downloaded ({type(error).__name__}: {str(error)[:160]}). Look at the network, or download it by hand "
            f"from https://github.com/deepinsight/insightface/releases and unpack it into {folder}."
        ) from error
    return folder


def import_face_analysis():
    """insightface's ``FaceAnalysis``, imported at first use.

    Raises:
        FaceModelError: it is missing, broken or too old.
    """
    try:
        with _quiet():
            import insightface
            from insightface.app import FaceAnalysis
    except ImportError as error:
        raise FaceModelError(missing_package_sentence("insightface", error)) from error
    if int(str(insightface.__version__).split(".")[0]) < 2:
        raise FaceModelError(missing_package_sentence("insightface", ImportError(f"found version {insightface.__version__}")))
    return FaceAnalysis


@contextlib.contextmanager
def _quiet():
    """insightface prints while it loads; a host's console is for what the user asked."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@lru_cache(maxsize=32)
def _content_hash(path: Path, modified: int) -> str:
    """Eight hexadecimal digits of the file's SHA-256."""
    return file_hash(path)[:8]


def _bgr(picture: np.ndarray) -> np.ndarray:
    """insightface reads pictures as OpenCV does: blue first."""
    return np.ascontiguousarray(picture[..., ::-1])
