"""The pictures in the help pages: every node in a real browser on a real ComfyUI, after a run on the demo model.

    python quickstart.py run python -m tools.node_pictures                     all of them
    python quickstart.py run python -m tools.node_pictures IDEA_AttentionMap   only this one

Needs a Chromium or Chrome. One graph holds all nodes; it runs once, then each node is photographed with the pictures it gave below it.
"""
import io
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from launcher.client import Client
from launcher.errors import LauncherError
from launcher.example_workflow import DEMO_PACK, NATIVE, example
from launcher.requirements import CHECKOUT
from launcher.session import any_host, session
from launcher.workflow import load_workflow

from .chromium import Page, find_browser, show_canvas, skip_the_tour

PICTURES = CHECKOUT / "web" / "docs" / "images"
RECIPE = "balanced"  # what Train IDEA shows first; only identities of one recipe can be merged
WINDOW = (900, 1700)
LEFT, TOP = 110, 190  # where the node stands on the canvas, beside the bars of the page
WIDTH, GAP, MARGIN = 360, 50, 24  # all below one another: the panel of the help is narrow
TITLE = 30  # of a node, above its position; the name of the pack stands above that
BADGE = 26
COLOURS = 192  # of a PNG's palette
BEACH = "a photo of <anna> smiling wearing a red shirt on a beach"


@dataclass
class Placed:
    """A node of the graph: its type, the widgets that differ from the defaults, and input → (node, output)."""

    kind: str
    widgets: dict = field(default_factory=dict)
    inputs: dict = field(default_factory=dict)
    below: dict = field(default_factory=dict)  # title → (node, output): pictures that are shown below it


def graph() -> dict[str, Placed]:
    """Every node of the pack, on the demo model."""
    model, clip, vae, names, photo = (("demo", slot) for slot in range(5))
    anna, ben = ("IDEA_LoadIdentity", 0), ("ben", 0)
    basis = {"model": model, "clip": clip}
    nodes = {
        "demo": Placed("IDEA_LoadDemoModel", below={"photo": photo}),
        "pack": Placed("IDEA_LoadFaceModel", {"pack": DEMO_PACK, "detection_size": 320}),
        "embed": Placed("IDEA_FaceEmbed", inputs={"face_model": ("pack", 0), "image": photo}, below={"preview": ("embed", 3)}),
        "enhance": Placed("IDEA_IDEnhancer", {"names": "my list"}, {"clip": clip, "face": ("embed", 0), "names_text": names}),
        "train": Placed("IDEA_TrainIDEA", {"resolution": NATIVE}, {
            **basis, "vae": vae, "image": photo, "enhanced": ("enhance", 0), "face_model": ("pack", 0),
        }, {"chart": ("train", 1)}),
        "save": Placed("IDEA_SaveIdentity", {"filename": "anna", "consent": "Anna agreed by mail on 3 May"}, {
            "identity": ("train", 0), "thumbnail": photo,
        }),
        "IDEA_LoadIdentity": Placed("IDEA_LoadIdentity", {"identity": "anna.safetensors"}),
        "ben": Placed("IDEA_LoadIdentity", {"identity": "ben.safetensors"}),
        "apply": Placed("IDEA_ApplyIDAdapter", inputs={**basis, "identity": anna}, below={"the picture": ("drawn decode", 0)}),
        "advanced": Placed("IDEA_ApplyIDAdapterAdvanced", {"key_value_strength": 0.8, "unlike_strength": 0.3}, {
            **basis, "identity": anna, "unlike": ben,
        }, {"the picture": ("unlike decode", 0)}),
        "merge": Placed("IDEA_MergeIdentities", {"trigger": "<both>"}, {"identity_a": anna, "identity_b": ben}, {
            "somebody between both": ("merged decode", 0),
        }),
        "of merged": Placed("IDEA_ApplyIDAdapter", inputs={**basis, "identity": ("merge", 0)}),
        "refit": Placed("IDEA_RefitIdentity", {"resolution": NATIVE}, {
            "identity": anna, **basis, "vae": vae, "image": photo, "enhanced": ("enhance", 0),
        }, {"chart": ("refit", 1)}),
        "check": Placed("IDEA_CheckModel", {"resolution": NATIVE}, {
            **basis, "vae": vae, "enhanced": ("enhance", 0), "image": photo, "face_model": ("pack", 0),
        }, {"sheet": ("check", 0)}),
        "blurred": Placed("ImageBlur", {"blur_radius": 31, "sigma": 10.0}, {"image": photo}),
        "two": Placed("ImageBatch", inputs={"image1": photo, "image2": ("blurred", 0)}),
        "three": Placed("ImageBatch", inputs={"image1": ("two", 0), "image2": photo}),
        "doctor": Placed("IDEA_ReferenceDoctor", inputs={"face_model": ("pack", 0), "image": ("three", 0)}, below={"sheet": ("doctor", 0)}),
        "map": Placed("IDEA_AttentionMap", {"text": BEACH, "percent": 0.4}, {
            "model": ("apply", 0), "clip": ("apply", 1), "latent": ("drawn", 0), "image": ("drawn decode", 0),
        }, {"sheet": ("map", 0)}),
        "score": Placed("IDEA_IdentityScore", {"threshold": 0.3}, {
            "face_model": ("pack", 0), "image": ("drawn decode", 0), "references": photo,
        }, {"sheet": ("score", 1)}),
        "faceclip": Placed("IDEA_FaceCLIPLoader", {"file": DEMO_PACK}),
        "encode": Placed("IDEA_FaceCLIPEncode", {"prompt": BEACH.replace("<anna>", "a person"), "width": NATIVE, "height": NATIVE}, {
            "faceclip": ("faceclip", 0), "face": ("embed", 1),
        }, {"the picture": ("read decode", 0)}),
        "size": Placed("EmptyLatentImage", {"width": NATIVE, "height": NATIVE, "batch_size": 4}),
        "nothing": Placed("CLIPTextEncode", {"text": ""}, {"clip": clip}),
    }
    both = BEACH.replace("<anna>", "<both>")
    for name, source, text in (("drawn", "apply", BEACH), ("unlike", "advanced", BEACH), ("merged", "of merged", both)):
        nodes[f"{name} text"] = Placed("CLIPTextEncode", {"text": text}, {"clip": (source, 1)})
        nodes |= _sampled(name, (source, 0), (f"{name} text", 0), ("nothing", 0))
    return nodes | _sampled("read", model, ("encode", 0), ("encode", 1), sampler_name="ddim", scheduler="ddim_uniform")


def _sampled(name: str, model, positive, negative, **widgets) -> dict[str, Placed]:
    settings = {"seed": 1, "steps": 20, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", **widgets}
    return {
        name: Placed("KSampler", settings, {"model": model, "positive": positive, "negative": negative, "latent_image": ("size", 0)}),
        f"{name} decode": Placed("VAEDecode", inputs={"samples": (name, 0), "vae": ("demo", 2)}),
    }


def picture_names() -> dict[str, str]:
    """Node id → the node of the graph that stands in its picture: the first of each kind."""
    return {placed.kind: name for name, placed in reversed(graph().items()) if placed.kind.startswith("IDEA_")}


BUILD = """
app.graph.clear();
const [nodes, width] = a, made = {};
const add = (kind, x, y) => {
  const node = LiteGraph.createNode(kind);
  app.graph.add(node);
  node.pos = [x, y];
  return node;
};
const connect = ([from, slot], to, input) => {
  const link = made[from].connect(slot, to, to.inputs.findIndex((one) => one.name === input));
  if (!link) throw new Error(`${from} ${slot} cannot be connected to ${input} of ${to.type}`);
};
Object.entries(nodes).forEach(([name, { kind, widgets }], row) => {
  const node = (made[name] = add(kind, 0, 2000 * row));
  for (const [widget, value] of Object.entries(widgets)) node.widgets.find((one) => one.name === widget).value = value;
  node.setSize([width, node.computeSize()[1]]);
});
const shown = {};
Object.entries(nodes).forEach(([name, { inputs, below }], row) => {
  for (const [input, from] of Object.entries(inputs)) connect(from, made[name], input);
  shown[name] = [made[name].id];
  Object.entries(below).forEach(([title, from], column) => {
    const preview = add("PreviewImage", 2000 * (column + 1), 2000 * row);
    preview.title = title;
    connect(from, preview, "images");
    shown[name].push(preview.id);
  });
});
app.canvas.links_render_mode = LiteGraph.HIDDEN_LINK;
app.queuePrompt(0);
return shown;
"""
FINISHED = """
const queue = await (await fetch('/queue')).json(), past = Object.values(await (await fetch('/history')).json());
const failed = ({ status }) => status?.messages?.find(([kind]) => kind === 'execution_error')?.[1];
const said = (one) => failed(one) ? `${failed(one).node_type}: ${failed(one).exception_message}` : one.status?.status_str;
return past.length >= a[0] && !queue.queue_running.length && !queue.queue_pending.length && past.map(said);
"""
SHOW = """
const LEAST = 220; // the host itself gives a picture no less
const [node, ...previews] = a[0].map((id) => app.graph.getNodeById(id)), [left, top] = a[1], [width, gap] = a[2];
app.canvas.deselectAll?.();
app.canvas.ds.scale = 1;
app.canvas.ds.offset = [left - node.pos[0], top - node.pos[1]];
const heightOf = ({ imgs }) => {
  if (!imgs?.length) return width;
  const columns = Math.ceil(Math.sqrt(imgs.length)), { naturalWidth, naturalHeight } = imgs[0];
  const one = imgs.length > 1 ? Math.min(naturalHeight, width / columns) : (width * naturalHeight) / naturalWidth;
  return Math.max(LEAST, Math.ceil(imgs.length / columns) * one);
};
const place = () => {
  let bottom = node.pos[1] + node.size[1];
  for (const preview of previews) {
    preview.pos = [node.pos[0], bottom + gap];
    preview.setSize([width, 60 + heightOf(preview)]);
    bottom = preview.pos[1] + preview.size[1];
  }
  app.canvas.draw(true, true);
  return bottom;
};
place(); // only what is on the canvas loads its picture
const all = () => previews.every((preview) => preview.imgs?.length);
for (let i = 0; i < 600 && !all(); i++) await new Promise((done) => setTimeout(done, 50));
const without = previews.find((preview) => !preview.imgs?.length);
if (without) throw new Error(`There is no picture '${without.title}' below ${node.title}.`);
const bottom = place();
const canvas = app.canvas.canvas.getBoundingClientRect();
return [canvas.left + left, canvas.top + top, node.size[0], bottom - node.pos[1]];
"""


def save_two_people(client: Client):
    """anna and ben of the workflow with two people, as identity files in the host's folder."""
    prompt = load_workflow(example(3), client.object_info())
    trained = {node["inputs"]["trigger"].strip("<>"): number for number, node in prompt.items() if node["class_type"] == "IDEA_TrainIDEA"}
    for name, number in trained.items():
        prompt[number]["inputs"]["recipe"] = RECIPE
        inputs = {"identity": [number, 0], "filename": name, "consent": "", "store_face": False}
        prompt[f"save {name}"] = {"class_type": "IDEA_SaveIdentity", "inputs": inputs}
    client.run(prompt)


def write(picture: bytes, path: Path):
    """Write a PNG with a palette, first under another name."""
    part = path.with_name(path.name + ".part")
    Image.open(io.BytesIO(picture)).convert("RGB").quantize(COLOURS, dither=Image.Dither.FLOYDSTEINBERG).save(part, "PNG", optimize=True)
    part.replace(path)


def photograph(page: Page, chosen: list[str]):
    """Build the graph on the page, run it, and write a picture of each node, or of the `chosen` ones."""
    nodes = graph()
    shown = page.run(BUILD, {name: vars(placed) for name, placed in nodes.items()}, WIDTH)
    said = page.wait(FINISHED, 2, timeout=900)  # after the run that made two people
    if set(said) != {"success"}:
        raise LauncherError(f"The graph of all nodes did not run to its end: {said}.")
    time.sleep(2)  # the pictures are still being loaded
    for kind, name in picture_names().items():
        if chosen and kind not in chosen:
            continue
        left, top, width, height = page.run(SHOW, shown[name], (LEFT, TOP), (WIDTH, GAP))
        time.sleep(0.7)
        above = TITLE + BADGE
        picture = page.picture((left - MARGIN, top - above - MARGIN / 2, width + 2 * MARGIN, height + above + 1.5 * MARGIN))
        write(picture, PICTURES / f"{kind}.png")
        print(kind, flush=True)


def main(chosen: list[str]) -> int:
    """Make the pictures of all nodes, or of those whose ids are given."""
    browser = find_browser()
    if browser is None:
        raise LauncherError("No Chromium or Chrome was found. Install one (apt install chromium), or name it in the variable CHROMIUM.")
    host = any_host(pip=False)
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, session(host, prepare=skip_the_tour) as running:
        save_two_people(running.client)
        with Page(browser, Path(profile), WINDOW) as page:
            show_canvas(page, running.process.address)
            photograph(page, chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
