"""Training where ComfyUI manages memory dynamically: its own classes, played on the CPU by `dynamic_vram_pack`."""
import functools
import json
from contextlib import ExitStack, contextmanager

import pytest
import torch
from safetensors.torch import save_file

from launcher.errors import NodeFailedError
from tiny_graphs import enhanced, probe, random_identity, sample, train

# Widths: of the UNet's first level, of the text, and inside the text encoder.
SIZES = {"demo": (64, 128, 512), "checkpoint": (320, 768, 3072)}
CASES = {
    "a picture was drawn before": {"mode": "resident", "drawn": True},
    "weights are gone in the backward pass": {"mode": "evicted"},
    "the file has another precision": {"mode": "evicted", "half": True, "drawn": True},
}
PLAIN = {"mode": "resident", "dynamic": False}


@pytest.fixture(scope="module")
def processes():
    """Gives each host a process of its own: what is loaded while the stand-in plays is of no use afterwards."""
    with ExitStack() as stack:
        yield functools.cache(lambda host: stack.enter_context(host.another_process()))


@pytest.fixture
def card_host(host, graph, processes):
    """Only hosts that have dynamic patchers can be asked."""
    if not host.probe(graph, "dynamic_vram:is_possible"):
        pytest.skip(f"{host.id} has no dynamic patchers")
    return processes(host)


@pytest.fixture(scope="module")
def on_plain():
    """`on_plain(host, graph, kind, …)`: what plain patchers learn, learned once."""
    kept = {}

    def of(host, graph, kind, **more):
        key = (host.id, kind, *more.items())
        if key not in kept:
            kept[key] = learned(host, graph, kind, **more, **PLAIN)
            assert kept[key]["after"]["dynamic"] == [False] * 3
        return kept[key]

    return of


@contextmanager
def card(host, graph, **how):
    """What is loaded inside lives on the card that the pack plays; see its `play`."""
    host.client.free()
    host.probe(type(graph)(), "dynamic_vram:play", how)
    try:
        yield
    finally:
        host.probe(type(graph)(), "dynamic_vram:stop")


def load(host, graph, kind, lora=True):
    """MODEL, CLIP and VAE of the demo model or of a checkpoint file, with a LoRA on both of the first two."""
    if kind == "demo":
        loader = graph.add("IDEA_LoadDemoModel")
    else:
        loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    if not lora:
        return loader[0], loader[1], loader[2]
    strengths = {"strength_model": 0.8, "strength_clip": 0.8}
    with_lora = graph.add("LoraLoader", model=loader[0], clip=loader[1], lora_name=lora_file(host, kind), **strengths)
    return with_lora[0], with_lora[1], loader[2]


def lora_file(host, kind) -> str:
    """A LoRA on a projection, a convolution and a layer of the text encoder."""
    width, text, inner = SIZES[kind]
    generator = torch.Generator().manual_seed(0)
    shapes = {
        "lora_unet_input_blocks_1_1_transformer_blocks_0_attn2_to_k": ((width, 4), (4, text)),
        "lora_unet_input_blocks_1_0_in_layers_2": ((width, 4, 1, 1), (4, width, 3, 3)),
        "lora_te_text_model_encoder_layers_1_mlp_fc1": ((inner, 4), (4, text)),
    }
    tensors = {}
    for name, (up, down) in shapes.items():
        tensors[f"{name}.alpha"] = torch.tensor(4.0)
        tensors[f"{name}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.1
        tensors[f"{name}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.1
    folder = host.base.root / "models" / "loras"
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / f"small_{kind}.safetensors")
    return f"small_{kind}.safetensors"


def learned(host, graph, kind, drawn=False, forget=True, lora=True, **how) -> dict:
    """One short training under `how`: what was learned, what it says, its hashes, and what the models are."""
    with card(host, graph, **how):
        if forget:
            host.probe(type(graph)(), "identities:forget_trainings")
        whole = type(graph)()
        models = load(host, whole, kind, lora)
        if drawn:
            host.run(type(graph)({**whole.prompt, **_sampled(whole, models)}))
        photo = whole.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)
        trained = train(whole, models, photo[0], enhanced(whole, models[1])[0])
        sockets = dict(zip("abc", models))
        asked = {
            "before": probe(whole, "dynamic_vram:models", **sockets),
            "hashes": probe(whole, "dynamic_vram:hashes", **sockets),
            "losses": probe(whole, "artist:described", a=trained[0]),
            "identity": probe(whole, "identities:digest", a=trained[0]),
            "after": probe(whole, "dynamic_vram:models", **sockets, d=trained[0]),
        }
        outputs = host.run(whole).outputs
    found = {name: json.loads(outputs[node.id]["text"][0]) for name, node in asked.items()}
    return {**found, "losses": found["losses"]["config"]["losses"], "says": outputs[trained.id]["text"][0]}


def _sampled(graph, models) -> dict:
    """The nodes that draw a picture on ``models``, which ``graph`` does not keep."""
    drawing = type(graph)(dict(graph.prompt))
    latent = sample(drawing, models[0], models[1], "a photo of a person")
    drawing.add("PreviewImage", images=drawing.add("VAEDecode", samples=latent[0], vae=models[2])[0])
    return drawing.prompt


@pytest.mark.parametrize("kind, case", [
    *(("demo", case) for case in CASES),
    *(("checkpoint", case) for case in CASES if "drawn" in CASES[case]),  # large; its second case is evicted too
])
def test_what_is_learned_on_a_dynamic_model_is_bit_for_bit_that_of_a_plain_one(card_host, graph, on_plain, kind, case):
    how = CASES[case]
    right = on_plain(card_host, graph, kind, half=how.get("half", False))
    found = learned(card_host, graph, kind, **how)
    assert found["after"]["dynamic"] == [True] * 3
    if "drawn" in how:
        assert found["before"]["staged"][0] > 50 and found["before"]["staged"][1] > 10
    assert "earlier" not in found["says"]
    for what in ("hashes", "losses", "identity"):
        assert found[what] == right[what], what
    assert found["after"]["plain_held"] == 0  # the twins were given back


def test_the_stand_in_makes_gradients_wrong_where_nothing_is_done_about_it(card_host, graph, on_plain):
    right = on_plain(card_host, graph, "demo", lora=False)
    card_host.probe(type(graph)(), "dynamic_vram:without_twins", {"on": True})
    try:
        wrong = learned(card_host, graph, "demo", lora=False, mode="evicted")
    finally:
        card_host.probe(type(graph)(), "dynamic_vram:without_twins", {"on": False})
    assert wrong["hashes"] == right["hashes"] and wrong["losses"][0] == right["losses"][0]
    assert wrong["losses"][1:] != right["losses"][1:]


@pytest.mark.parametrize("dynamic", [False, True], ids=["plain", "dynamic"])
def test_little_memory_for_a_model_that_is_not_dynamic_changes_nothing(card_host, graph, on_plain, dynamic):
    """Its layers get their weights one after the other through a buffer, and so do those of a dynamic model's twin."""
    right = on_plain(card_host, graph, "demo", lora=False)
    short = learned(card_host, graph, "demo", lora=False, drawn=True, mode="evicted", dynamic=dynamic, short=True)
    assert short["losses"] == right["losses"] and short["identity"] == right["identity"]


def test_lora_counts_and_what_was_trained_dynamically_is_not_trained_again(card_host, graph, on_plain):
    bare = on_plain(card_host, graph, "demo", lora=False)
    first = learned(card_host, graph, "demo", mode="resident")
    again = learned(card_host, graph, "demo", forget=False, **PLAIN)
    assert bare["identity"] != first["identity"] == again["identity"]
    assert "earlier training" in again["says"] and "earlier" not in first["says"]


def test_a_refit_on_a_dynamic_model_is_that_on_a_plain_one(card_host, graph):
    found = []
    for how in (PLAIN, {"mode": "evicted"}):
        with card(card_host, graph, **how):
            card_host.probe(type(graph)(), "identities:forget_trainings")
            whole = type(graph)()
            model, clip, vae = load(card_host, whole, "demo")
            photo = whole.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)
            refitted = whole.add(
                "IDEA_RefitIdentity", identity=random_identity(whole, (model, clip))[0], model=model, clip=clip,
                vae=vae, image=photo[0], enhanced=enhanced(whole, clip)[0], steps=2, resolution=64, seed=0,
            )
            found.append(card_host.probe(whole, "identities:digest", a=refitted[0]))
    assert found[0] == found[1]


def test_a_loader_that_cannot_be_asked_again_is_met_with_one_sentence(card_host, graph):
    with card(card_host, graph, mode="resident"):
        whole = type(graph)()
        model, clip, vae = load(card_host, whole, "demo")
        unknown = probe(whole, "dynamic_vram:unknown_loader", a=model, b=clip)
        photo = whole.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)
        start = enhanced(whole, clip)
        sentence = "weights of the {}.*dynamic VRAM.*Load Checkpoint.*--disable-dynamic-vram"
        for socket, models in (("MODEL", (unknown[0], clip, vae)), ("CLIP", (model, unknown[1], vae))):
            asked = type(graph)(dict(whole.prompt))
            train(asked, models, photo[0], start[0])
            with pytest.raises(NodeFailedError, match="(?s)Train.*" + sentence.format(socket)):
                card_host.run(asked)
        asked = type(graph)(dict(whole.prompt))
        with pytest.raises(NodeFailedError, match="(?s)IDEnhancer.*" + sentence.format("CLIP")):
            card_host.probe(asked, "identities:summary", a=enhanced(asked, unknown[1])[0])


def test_a_model_that_would_be_loaded_otherwise_by_now_is_met_with_one_sentence(card_host, graph):
    with card(card_host, graph, mode="resident"):
        model, clip, vae = load(card_host, graph, "demo")
        changed = probe(graph, "dynamic_vram:changed_file", a=model, b=clip)
        photo = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)
        start = enhanced(graph, clip)
        for socket, models in (("MODEL", (changed[0], clip, vae)), ("CLIP", (model, changed[1], vae))):
            asked = type(graph)(dict(graph.prompt))
            train(asked, models, photo[0], start[0])
            with pytest.raises(NodeFailedError, match=f"weights of the {socket}.*the file has changed.*restart"):
                card_host.run(asked)
        left = card_host.probe(graph, "dynamic_vram:models", a=model, b=clip, c=vae)
        assert left["plain_held"] == 0


def test_layers_changed_from_outside_are_met_with_one_sentence(card_host, graph):
    with card(card_host, graph, mode="resident"):
        model, clip, vae = load(card_host, graph, "demo", lora=False)
        name = lora_file(card_host, "demo")
        bypassed = graph.add("LoraLoaderBypassModelOnly", model=model, lora_name=name, strength_model=1.0)
        photo = graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)
        train(graph, (bypassed[0], clip, vae), photo[0], enhanced(graph, clip)[0])
        with pytest.raises(NodeFailedError, match="bypass_lora.*Load LoRA"):
            card_host.run(graph)
