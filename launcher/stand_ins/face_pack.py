"""A face pack that stands in for a real one: two tiny ONNX models in insightface's own formats, made on the spot.

    python launcher/stand_ins/face_pack.py FOLDER

It lets the real `insightface.app.FaceAnalysis` run where no published pack can be downloaded: in the tests, and in the quickstart on a machine
without a network. It finds large, upright, frontal faces in coloured pictures and tells simple faces apart. It is **no** substitute for
buffalo_l or antelopev2: it misses many faces, its landmarks are those of an average face, and its vectors carry little identity.

- The detector has SCRFD's nine outputs. A convolutional net that sees 15×15 cells looks at the picture in twelve sizes; the best of its
  answers around each anchor become score, box and landmarks through tables written here.
- The recognizer has ArcFace's input and output: fixed random filters, pooled, projected to 512 numbers, less the answer to an average drawn face.

Needs numpy and onnx. The same files come out every time.
"""
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper, save_model

if __package__:
    from .face_weights import detector_layers
else:  # run as a script
    from face_weights import detector_layers

LICENCE = "Demo face pack of ID-EA, made by launcher/stand_ins/face_pack.py: a stand-in without licence restrictions, not for real use.\n"
OPSET, IR_VERSION = 18, 8  # antialiased Resize; readable by onnxruntime from 1.14 on

# Sizes of faces are measured in u, the distance between the eyes of an average face. The net sees a face at 5 cells per u.
CELLS_PER_U = 5.0
FIELD = 15  # cells the net sees around a point
NO_FACE = -20.0  # logit
SMALLEST_U, LARGEST_U, SIZES = 11.5, 175.0, 12  # pixels of the detector's input, in equal ratios of 1.28
STRIDES, ANCHORS, SUBSTEPS = (8, 16, 32), 2, 4  # SCRFD's; each anchor is searched on a 4×4 grid of its cell
# An average face in u, from the middle between eyes and mouth: x1 y1 x2 y2 of the box, then the five landmarks.
BOX = (-1.1, -1.4, 1.1, 1.3)
LANDMARKS = ((-0.5, -0.53), (0.5, -0.53), (0.0, 0.02), (-0.38, 0.53), (0.38, 0.53))

CROP = 112
FILTERS, POOLED, WIDTH = 24, 5, 512
SEED, EPSILON = 112, 1e-3


def make_face_pack(folder: Path) -> Path:
    """Write `detector.onnx`, `recognizer.onnx` and `LICENSE` into `folder`, which is made if need be; return it."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in (("detector.onnx", make_detector()), ("recognizer.onnx", make_recognizer())):
        checker.check_model(model)
        save_model(model, str(folder / name))
    (folder / "LICENSE").write_text(LICENCE, encoding="utf-8")
    return folder


class _Graph:
    """Collects nodes and constants; every method returns the name of a result."""

    def __init__(self):
        self.nodes, self.constants = [], {}

    def constant(self, values, dtype=np.float32) -> str:
        array = np.asarray(values, dtype=dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self.constants:
            self.constants[key] = numpy_helper.from_array(array, f"constant{len(self.constants)}")
        return self.constants[key].name

    def add(self, op: str, *inputs: str, output: str = "", **attributes) -> str:
        output = output or f"{op.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=f"node{len(self.nodes)}", **attributes))
        return output

    def model(self, inputs, outputs):
        graph = helper.make_graph(self.nodes, "demo_face_pack", inputs, outputs, list(self.constants.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="ID-EA demo face pack")
        model.ir_version = IR_VERSION
        return model


def make_detector():
    """(1, 3, H, W) RGB as (x − 127.5) / 128, H and W multiples of 32 → score, box and landmarks of 2 anchors per cell, for each stride."""
    g = _Graph()
    # Back to −0.5 … 0.5: black is −0.5, and so is what lies outside the picture.
    picture = g.add("Mul", "input.1", g.constant(128.0 / 255.0))
    layers = [tuple(g.constant(value) for value in layer) for layer in detector_layers()]
    shape = g.add("Slice", g.add("Shape", picture), g.constant([2], np.int64), g.constant([4], np.int64))
    sizes = SMALLEST_U * (LARGEST_U / SMALLEST_U) ** (np.arange(SIZES) / (SIZES - 1))
    per_anchor = SIZES // (len(STRIDES) * ANCHORS)
    outputs = {"score": [], "bbox": [], "kps": []}
    for s, stride in enumerate(STRIDES):
        cells = g.add("Div", shape, g.constant([stride], np.int64))
        anchors = []
        for a in range(ANCHORS):
            first = (s * ANCHORS + a) * per_anchor
            own = sizes[first : first + per_anchor]
            grids = [_on_grid(g, _look(g, picture, layers, u), cells, u / CELLS_PER_U * SUBSTEPS / stride) for u in own]
            anchors.append(_read_out(g, g.add("Concat", *grids, axis=1), _hypotheses(own, stride)))
        for name, width, parts in zip(outputs, (1, 4, 10), zip(*anchors)):
            both = g.add("Concat", *parts, axis=1)  # anchors of a cell follow each other
            g.add("Reshape", both, g.constant([-1, width], np.int64), output=f"{name}_{stride}")
            outputs[name].append((f"{name}_{stride}", width))
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["?", w]) for group in outputs.values() for n, w in group]
    return g.model([helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])], values)


def _look(g: _Graph, picture: str, layers, u: float) -> str:
    """The net's answer (1, 1, h, w), as a logit, at every cell of the picture scaled so that a face of size `u` has 5 cells per u."""
    ratio = CELLS_PER_U / u
    x = g.add("Resize", picture, "", g.constant([1, 1, ratio, ratio]), mode="linear", antialias=1)
    margin = FIELD // 2
    x = g.add("Pad", x, g.constant([0, 0, margin, margin] * 2, np.int64), g.constant(-0.5))
    for number, (weight, bias) in enumerate(layers):
        dilation = (1, 1, 2, 3, 1)[number]
        x = g.add("Conv", x, weight, bias, dilations=[dilation, dilation])
        if number + 1 < len(layers):
            x = g.add("Relu", x)
    return x


def _on_grid(g: _Graph, logits: str, cells: str, ratio: float) -> str:
    """(1, 1, h, w), enlarged by `ratio` → (rows·columns, 16): the answers on a 4×4 grid inside each cell of a stride."""
    fine = g.add("Concat", g.constant([1, 1], np.int64), g.add("Mul", cells, g.constant([SUBSTEPS], np.int64)), axis=0)
    logits = g.add("Resize", logits, "", g.constant([1, 1, ratio, ratio]), mode="linear")
    # What sizes rounded down have cost is added at the far edges; stretching to the full size would move every face.
    missing = g.add("Sub", fine, g.add("Shape", logits))
    logits = g.add("Pad", logits, g.add("Concat", g.constant([0] * 4, np.int64), missing, axis=0), g.constant(NO_FACE))
    rows, columns = (g.add("Slice", cells, g.constant([i], np.int64), g.constant([i + 1], np.int64)) for i in (0, 1))
    steps = g.constant([SUBSTEPS], np.int64)
    logits = g.add("Reshape", logits, g.add("Concat", rows, steps, columns, steps, axis=0))
    return g.add("Reshape", g.add("Transpose", logits, perm=[0, 2, 1, 3]), g.constant([-1, SUBSTEPS * SUBSTEPS], np.int64))


def _hypotheses(sizes, stride: int) -> np.ndarray:
    """(len(sizes)·16, 14): where box and landmarks lie if the face has this size and sits on this point of the grid, in strides."""
    rows = []
    for u in sizes:
        for y, x in np.ndindex(SUBSTEPS, SUBSTEPS):
            point = (np.array([x, y]) + 0.5) / SUBSTEPS
            box = np.array(BOX).reshape(2, 2) * u / stride + point
            marks = np.array(LANDMARKS) * u / stride + point
            rows.append(np.concatenate([-box[0], box[1], marks.reshape(-1)]))  # SCRFD measures left and top outwards
    return np.array(rows)


def _read_out(g: _Graph, logits: str, table: np.ndarray) -> tuple[str, str, str]:
    """(cells, hypotheses) → score (cells, 1), box (cells, 4), landmarks (cells, 10): the best score, the likeliest place."""
    score = g.add("Sigmoid", g.add("ReduceMax", logits, g.constant([1], np.int64), keepdims=1))
    place = g.add("MatMul", g.add("Softmax", logits, axis=1), g.constant(table))
    box, marks = (g.add("Slice", place, *(g.constant([v], np.int64) for v in (a, b, 1))) for a, b in ((0, 4), (4, 14)))
    return score, box, marks


def make_recognizer():
    """(1, 3, 112, 112) RGB as (x − 127.5) / 127.5, aligned → (1, 512)."""
    random = np.random.default_rng(SEED)
    filters = random.standard_normal((FILTERS, 3, 5, 5)) / np.sqrt(3 * 5 * 5)
    projection = random.standard_normal((FILTERS * POOLED * POOLED, WIDTH)) / np.sqrt(WIDTH)
    # All faces look alike to random filters: what an average face answers is taken away, and the differences remain. Rounded, so that
    # every machine writes the same file.
    average = np.round(np.mean([_features(filters, face) for face in _simple_faces(random)], axis=0), 4)
    one, zero = np.ones(3), np.zeros(3)
    g = _Graph()
    x = g.add("InstanceNormalization", "input.1", g.constant(one), g.constant(zero), epsilon=EPSILON)  # whatever the light
    x = g.add("AveragePool", x, kernel_shape=[4, 4], strides=[2, 2])  # a shift of a pixel or two shall not matter
    x = g.add("Abs", g.add("Conv", x, g.constant(filters), strides=[2, 2]))
    x = g.add("Flatten", g.add("AveragePool", x, kernel_shape=[6, 6], strides=[5, 5]))
    g.add("MatMul", g.add("Sub", x, g.constant(average)), g.constant(projection), output="embedding")
    return g.model(*(
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in (("input.1", [1, 3, CROP, CROP]), ("embedding", [1, WIDTH]))
    ))


def _features(filters: np.ndarray, face: np.ndarray) -> np.ndarray:
    """The recognizer in numpy up to its projection: (3, 112, 112) → (600,)."""
    windows = lambda x, side, step: np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::step, ::step]  # noqa: E731
    x = face - face.mean((1, 2), keepdims=True)
    x = x / np.sqrt((x * x).mean((1, 2), keepdims=True) + EPSILON)
    x = windows(x, 4, 2).mean((3, 4))
    x = np.abs(np.einsum("cyxij,fcij->fyx", windows(x, 5, 2), filters))
    return windows(x, 6, 5).mean((3, 4)).reshape(-1)


def _simple_faces(random: np.random.Generator, count: int = 24):
    """Aligned drawings (3, 112, 112) of a background, hair, a face, eyes and a mouth in many colours."""
    y, x = np.mgrid[0:CROP, 0:CROP].astype(np.float32)
    disc = lambda cx, cy, rx, ry: ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1  # noqa: E731
    for _ in range(count):
        face = np.empty((3, CROP, CROP), dtype=np.float32)
        face[:] = random.uniform(20, 235, (3, 1, 1))
        skin = np.array([250, 215, 190]) * random.uniform(0.4, 1.0)
        widen, lengthen = random.uniform(0.9, 1.15, 2)
        parts = [(disc(56, 50, 46 * widen, 62 * lengthen), random.uniform(20, 200, 3)), (disc(56, 68, 39 * widen, 54 * lengthen), skin)]
        for cx in (38, 74):
            parts += [(disc(cx, 41, 11, 2.5), skin * 0.4), (disc(cx, 52, 8, 4), np.full(3, 235.0)), (disc(cx, 52, 4, 4), random.uniform(20, 130, 3))]
        parts += [(disc(56, 72, 6, 4), skin * 0.85), (disc(56, 92, random.uniform(11, 18), random.uniform(3, 6)), skin * (0.8, 0.5, 0.5))]
        for where, colour in parts:
            face[:, where] = colour[:, None]
        yield (face - 127.5) / 127.5


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python launcher/stand_ins/face_pack.py FOLDER")
    sys.stdout.write(f"{make_face_pack(Path(sys.argv[1]))}\n")
