"""The face pack: detector and recognizer as ONNX files in insightface's own layout.

``insightface.app.FaceAnalysis(name=str(assets.FACE_PACK))`` loads the folder like any other pack.
"""
from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from .detector import STRIDES, Detector
from .recognizer import Recognizer

_BIG = 256  # initializers with more numbers than this are stored as float16
_LARGEST = 1 << 17  # matrices with more than this as whole numbers of a byte, with a scale per row


def export(detector: Detector, recognizer: Recognizer, folder: Path) -> list[Path]:
    """Write ``det_portrait.onnx`` and ``rec_portrait.onnx``; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    outputs = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    first = _onnx(detector, torch.zeros(1, 3, 320, 320), "input.1", outputs, {"input.1": {2: "height", 3: "width"}})
    # Batch axis named, so that the recognizer also takes several faces at once, as insightface's do
    axes = {"input.1": {0: "batch"}, "embedding": {0: "batch"}}
    second = _onnx(recognizer, torch.zeros(1, 3, 112, 112), "input.1", ["embedding"], axes)
    paths = [folder / "det_portrait.onnx", folder / "rec_portrait.onnx"]
    for path, graph in zip(paths, (first, second)):
        path.write_bytes(in_bytes(_halved(graph)))
    return paths


def _onnx(model: torch.nn.Module, example, input_name: str, outputs: list[str], axes: dict) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older exporter needs no further package
        torch.onnx.export(
            model.train(False), (example,), buffer, dynamo=False, opset_version=17, input_names=[input_name], output_names=outputs, dynamic_axes=axes
        )
    return buffer.getvalue()


def _halved(graph_bytes: bytes) -> bytes:
    """The same graph with its large weights stored as float16 and cast at load: half the file, float32 arithmetic."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_from_string(graph_bytes)
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < _BIG:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + ".half"))
        casts.append(helper.make_node("Cast", [name + ".half"], [name], name=f"Cast_{name}", to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def in_bytes(graph_bytes: bytes) -> bytes:
    """The same graph with its largest float16 matrices stored as int8 and a scale per row: the recognizer's last layer, half of its file.

    The rounding is 1/254 of a row's largest weight, which turns the embeddings by less than a degree. What is small already stays.
    """
    import numpy as np
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(graph_bytes)
    graph = model.graph
    for tensor in list(graph.initializer):
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float16 or values.ndim != 2 or values.size < _LARGEST:
            continue
        values, name = values.astype(np.float32), tensor.name.removesuffix(".half")
        scale = np.abs(values).max(1) / 127
        tensor.CopyFrom(numpy_helper.from_array(np.round(values / scale[:, None]).astype(np.int8), name + ".byte"))
        graph.initializer.append(numpy_helper.from_array(scale, name + ".scale"))
        (cast,) = (node for node in graph.node if node.op_type == "Cast" and list(node.output) == [name])
        cast.CopyFrom(helper.make_node("DequantizeLinear", [name + ".byte", name + ".scale"], [name], name=cast.name, axis=0))
    onnx.checker.check_model(model)
    return model.SerializeToString()
