"""Everything an artist may get wrong, in real hosts: each its own sentence, and nothing lost."""
import io
import json
import os
import pickle
import struct

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from drawn_faces import collage as drawn_collage, drawn_face, landscape
from launcher.errors import NodeFailedError, PromptRejectedError
from tiny_graphs import apply, enhanced, probe, random_identity, sample, tiny, train


def put_photo(host, name: str, data: bytes) -> str:
    """Write a picture among the host's input pictures."""
    folder = host.base.root / "input"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data)
    return name


def picture_of(tensor: torch.Tensor) -> Image.Image:
    """(H, W, 3) in 0..1 → a picture."""
    return Image.fromarray((tensor * 255).round().byte().numpy())


def portrait(seed: int) -> Image.Image:
    return picture_of(drawn_face(seed)[0])


def encoded(picture: Image.Image, kind: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def embed(host, graph, image, choose="largest", index=0, on_missing="error"):
    """A FaceEmbed node on the demo face pack."""
    model = graph.add("IDEA_LoadFaceModel", pack=host.face_pack(), provider="CPU", detection_size=640)
    return graph.add("IDEA_FaceEmbed", face_model=model[0], image=image, choose=choose, index=index, on_missing=on_missing)


def load(host, graph, name, data):
    return graph.add("LoadImage", image=put_photo(host, name, data))


def fails(host, graph, node, says, kind=NodeFailedError):
    """Run up to ``node`` and expect a sentence."""
    with pytest.raises(kind, match=says) as caught:
        host.probe(graph, "faces:describe", a=node[0])
    return caught.value


def test_a_photograph_goes_all_the_way_to_an_embedding(host, graph):
    found = host.probe(graph, "faces:describe", a=embed(host, graph, load(host, graph, "one.png", encoded(portrait(1)))[0])[0])
    assert found["faces"] == 1 and abs(found["norm"] - 1) < 1e-5 and found["recognizer"] and found["licence"]


def test_no_face(host, graph):
    fails(host, graph, embed(host, graph, load(host, graph, "sky.png", encoded(picture_of(landscape())))[0]), "[Nn]o face")


def test_no_face_in_any_photograph_is_an_error_even_when_skipping(host, graph):
    fails(host, graph, embed(host, graph, load(host, graph, "sky.png", encoded(picture_of(landscape())))[0], on_missing="skip"), "[Nn]o face")


def test_forty_faces(host, graph):
    """One of them can be chosen by its number; a number beyond them is a sentence."""
    crowd = load(host, graph, "crowd.png", encoded(picture_of(drawn_collage())))
    first = host.probe(graph, "faces:describe", a=embed(host, graph, crowd[0], "left to right", 0)[0])
    last = host.probe(graph, "faces:describe", a=embed(host, graph, crowd[0], "left to right", 39)[0])
    assert first["faces"] == last["faces"] == 1 and first["boxes"] != last["boxes"]
    fails(host, graph, embed(host, graph, crowd[0], "left to right", 500), "500")


def test_a_one_pixel_image(host, graph):
    fails(host, graph, embed(host, graph, load(host, graph, "dot.png", encoded(Image.new("RGB", (1, 1))))[0]), "1×1|1 ?x ?1")


def sixteen_bit(picture: Image.Image) -> bytes:
    """A 16-bit grey PNG; Pillow's own writer is the reference for what hosts must read."""
    grey = picture.convert("L").point(lambda v: v * 257, "I").convert("I;16")
    return encoded(grey)


def rotated(picture: Image.Image) -> bytes:
    """The pixels turned by 90°, and an EXIF note that says so, as phones write it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.rotate(90, expand=True), "JPEG", quality=95, exif=exif)


@pytest.mark.parametrize(
    "kind, data",
    [
        ("grey.png", lambda: encoded(portrait(1).convert("L"))),
        ("alpha.png", lambda: encoded(portrait(1).convert("RGBA"))),
        ("sixteen.png", lambda: sixteen_bit(portrait(1))),
        ("exif.jpg", lambda: rotated(portrait(1))),
        ("palette.png", lambda: encoded(portrait(1).convert("P"))),
    ],
)
@pytest.mark.one_host
def test_unusual_photographs_can_be_trained_on(host, graph, kind, data):
    """Not every kind shows the demo detector a face; each must come through LoadImage and TrainIDEA without harm."""
    loader = tiny(graph)
    photo = load(host, graph, kind, data())
    trained = train(graph, loader, photo[0], enhanced(graph, loader[1])[0], steps=1)
    assert len(host.probe(graph, "identities:digest", a=trained[0])) == 64


@pytest.mark.parametrize("kind, data", [("alpha.png", lambda: encoded(portrait(1).convert("RGBA"))), ("exif.jpg", lambda: rotated(portrait(1)))])
def test_alpha_and_exif_do_not_hide_the_face(host, graph, kind, data):
    plain = host.probe(graph, "faces:describe", a=embed(host, graph, load(host, graph, "one.png", encoded(portrait(1)))[0])[0])
    found = host.probe(graph, "faces:describe", a=embed(host, graph, load(host, graph, kind, data())[0])[0])
    assert sum(a * b for a, b in zip(plain["vector"], found["vector"])) > 0.9


@pytest.mark.one_host
def test_four_channels_and_one_channel_are_taken_as_they_are(host, graph):
    photo = load(host, graph, "one.png", encoded(portrait(1)))
    for channels in (1, 4):
        changed = probe(graph, "pictures:channels", {"channels": channels}, a=photo[0])
        if channels == 4:  # a grey face is one the demo detector may miss
            assert host.probe(graph, "faces:describe", a=embed(host, graph, changed[0])[0])["faces"] == 1
        loader = tiny(graph)
        trained = train(graph, loader, changed[0], enhanced(graph, loader[1])[0], steps=1)
        host.probe(graph, "identities:digest", a=trained[0])


def test_nan_pixels(host, graph):
    loader = tiny(graph)
    broken = probe(graph, "pictures:nan")
    fails(host, graph, embed(host, graph, broken[0]), "not finite|NaN")
    fails(host, graph, train(graph, loader, broken[0], enhanced(graph, loader[1])[0], steps=1), "not finite|NaN")


@pytest.mark.parametrize("names, text", [("my list", ""), ("my list", "# nobody\n \n,"), ("words", "  ")])
def test_an_empty_list_of_names(host, graph, names, text):
    loader = tiny(graph)
    face = probe(graph, "faces:made_up")
    node = graph.add("IDEA_IDEnhancer", face=face[0], clip=loader[1], names=names, names_text=text, enhancer_seed=0)
    fails(host, graph, node, "list of names is empty.*names_text")


def test_the_artists_own_names_make_another_anchor(host, graph):
    loader = tiny(graph)
    face = probe(graph, "faces:made_up")
    nodes = [graph.add("IDEA_IDEnhancer", face=face[0], clip=loader[1], names=names, names_text=text, enhancer_seed=0)
             for names, text in (("celebrities", ""), ("my list", "Ada Lovelace\nAlan Turing"), ("words", "human face"))]
    anchors = host.probe(graph, "faces:anchors", a=nodes[0][0], b=nodes[1][0], c=nodes[2][0])
    assert len({json.dumps(anchor) for anchor in anchors}) == 3


@pytest.mark.parametrize("trigger, says", [("", "empty"), ("my anna", "white space"), ("person", "already a token"), ("(anna)", "'\\('")])
def test_a_bad_trigger(host, graph, trigger, says):
    loader = tiny(graph)
    photo = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0)
    fails(host, graph, train(graph, loader, photo[0], enhanced(graph, loader[1])[0], trigger=trigger), says)


@pytest.mark.parametrize("trigger, says", [("person", "already a token"), ("my anna", "white space")])
def test_a_bad_trigger_chosen_when_applying(host, graph, trigger, says):
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader)[0], trigger=trigger)
    fails(host, graph, graph.add("CLIPTextEncode", clip=on[1], text="a person"), says)


@pytest.mark.parametrize("change", ("one block more", "one block less", "only keys", "another width"))
def test_an_identity_for_a_differently_built_model_of_the_family(host, graph, change):
    """Such as one trained on SDXL for a distilled SDXL with fewer blocks."""
    loader = tiny(graph)
    person = probe(graph, "identities:rebuilt", {"change": change}, a=random_identity(graph, loader, recipe="paper" if change == "another width" else "fast")[0])
    on = apply(graph, loader[0], loader[1], person[0])
    fails(host, graph, sample(graph, on[0], on[1]), "cross-attention.*[Tt]rain")


def test_an_identity_file_that_is_damaged_foreign_or_hostile(host, graph):
    folder = host.base.root / "models" / "idea"
    folder.mkdir(parents=True, exist_ok=True)
    loader = tiny(graph)
    graph.add("IDEA_SaveIdentity", identity=random_identity(graph, loader)[0], filename="whole")
    host.run(graph)
    whole = (folder / "whole.safetensors").read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    (folder / "text.safetensors").write_bytes(b"this is a text file")
    save_file({"lora_unet_down.weight": torch.zeros(4, 4)}, folder / "lora.safetensors")
    marker = host.base.root / "hostile-was-here"
    for name in ("hostile.bin", "hostile.pt"):
        (folder / name).write_bytes(pickle.dumps(_Hostile(str(marker))))
    torch.save({"a": _Hostile(str(marker))}, folder / "hostile2.bin")
    for name, says in {
        "cut.safetensors": "cut.safetensors is truncated", "header.safetensors": "header", "text.safetensors": "text.safetensors",
        "lora.safetensors": "lora_unet_down.weight", "hostile.bin": "running code", "hostile.pt": "running code", "hostile2.bin": "running code",
    }.items():
        alone = type(graph)()
        fails(host, alone, alone.add("IDEA_LoadIdentity", identity=name), says)
    assert not marker.exists()
    assert (folder / "whole.safetensors").read_bytes() == whole


class _Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("name", ["../evil", "../../output/evil", "/tmp/evil", "a/../../evil", "..\\evil", "", "NUL", "con.evil", "aux /evil", "evil./anna", "COM¹", "evil/lpt².x", "CONIN$",
                                  "evil\u202egpj", "evil\nanna", "evil" * 100])
def test_a_file_name_that_leaves_the_folder(host, graph, name):
    loader = tiny(graph)
    before = sorted(p for p in host.base.root.rglob("*evil*"))
    node = graph.add("IDEA_SaveIdentity", identity=random_identity(graph, loader)[0], filename=name)
    fails(host, graph, node, "[Ff]ile ?name|not allowed|empty")
    assert sorted(p for p in host.base.root.rglob("*evil*")) == before and not os.path.exists("/tmp/evil.safetensors")
    alone = type(graph)()
    reading = alone.add("IDEA_LoadIdentity", identity=f"{name}.safetensors")
    with pytest.raises((PromptRejectedError, NodeFailedError)):
        host.probe(alone, "identities:digest", a=reading[0])


def test_links_lead_neither_out_of_the_folder_nor_round_in_it(host, graph, tmp_path):
    folder = host.base.root / "models" / "idea"
    folder.mkdir(parents=True, exist_ok=True)
    links = {"out": tmp_path, "round": folder, "loop": folder / "loop"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    try:
        made = random_identity(graph, tiny(graph))[0]
        for name in ("out/evil", "loop/evil"):
            alone = type(graph)(graph.prompt)
            fails(host, alone, alone.add("IDEA_SaveIdentity", identity=made, filename=name), "leads through a link out of")
        assert not list(tmp_path.iterdir())
        listed = host.client.object_info()["IDEA_LoadIdentity"]["input"]["required"]["identity"][0]
        assert not [name for name in listed if name.startswith(("round/", "loop/"))]
    finally:
        for name in links:
            (folder / name).unlink()


def test_a_full_disk(host, graph):
    loader = tiny(graph)
    found = host.probe(graph, "identities:save_over_the_limit", a=random_identity(graph, loader)[0])
    assert "No space left" in found["error"] and "not lost" in found["error"] and found["left"] == []


@pytest.mark.one_host
def test_a_loss_that_turns_nan(host, graph):
    loader = tiny(graph)
    start = enhanced(graph, loader[1])
    with pytest.raises(NodeFailedError, match="not finite 3 times.*Lower lr"):
        host.probe(graph, "failures:nan_after", {"steps": 2}, a=loader[0], b=loader[1], c=loader[2], d=start[0])


@pytest.mark.one_host
def test_out_of_memory_takes_fewer_pictures_at_a_time(host, graph):
    loader = tiny(graph)
    start = enhanced(graph, loader[1])
    found = host.probe(graph, "failures:out_of_memory", a=loader[0], b=loader[1], c=loader[2], d=start[0])
    assert found["micro_batch"] == 1 and len(found["losses"]) == 2


def test_insightface_is_not_installed(host, graph):
    said = host.probe(graph, "faces:without_insightface", {"pack": host.face_pack()})
    assert "insightface" in said and "pip install" in said and said.endswith((".", ")"))


@pytest.mark.one_host
def test_an_unchanged_graph_is_free(host, graph):
    """On a second queue the host runs nothing at all."""
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    photo = load(host, graph, "one.png", encoded(portrait(1)))
    face = embed(host, graph, photo[0])
    start = graph.add("IDEA_IDEnhancer", face=face[0], clip=loader[1], names="words", names_text="human face", enhancer_seed=0)
    trained = train(graph, loader, photo[0], start[0], steps=1)
    on = apply(graph, loader[0], loader[1], trained[0])
    decoded = graph.add("VAEDecode", samples=sample(graph, on[0], on[1])[0], vae=loader[2])
    graph.add("PreviewImage", images=decoded[0])
    host.run(graph)
    assert host.run(graph).cached == frozenset(graph.prompt)
