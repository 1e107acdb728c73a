"""The ground all host tests stand on: hosts are found, start, load the pack, and compute the same thing every time."""
import re

import pytest

from launcher import hosts
from launcher.errors import PromptRejectedError

NODES = [
    "IDEA_ApplyIDAdapter",
    "IDEA_ApplyIDAdapterAdvanced",
    "IDEA_AttentionMap",
    "IDEA_CheckModel",
    "IDEA_FaceCLIPEncode",
    "IDEA_FaceCLIPLoader",
    "IDEA_FaceEmbed",
    "IDEA_IDEnhancer",
    "IDEA_IdentityScore",
    "IDEA_LoadDemoModel",
    "IDEA_LoadFaceModel",
    "IDEA_LoadIdentity",
    "IDEA_MergeIdentities",
    "IDEA_ReferenceDoctor",
    "IDEA_RefitIdentity",
    "IDEA_SaveIdentity",
    "IDEA_TrainIDEA",
]


def stock_graph(graph, checkpoint, seed=1):
    """Add text → sampler → picture with stock nodes only; return the sampler and the saving node."""
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=checkpoint)
    positive = graph.add("CLIPTextEncode", clip=loader[1], text="a photo of a person")
    negative = graph.add("CLIPTextEncode", clip=loader[1], text="")
    latent = graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)
    sampler = graph.add("KSampler", model=loader[0], positive=positive[0], negative=negative[0], latent_image=latent[0],
                        seed=seed, steps=3, cfg=5.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    decoded = graph.add("VAEDecode", samples=sampler[0], vae=loader[2])
    return sampler, graph.add("SaveImage", images=decoded[0], filename_prefix="stock")


def test_a_host_is_there():
    assert hosts.find_checkouts().found or hosts.pip_host_is_installed(), "no ComfyUI to test on; run: python quickstart.py test"


def test_the_pack_loads_in_silence_and_offers_its_nodes(host):
    offered = [name for name in host.client.object_info() if name.startswith("IDEA_")]
    assert sorted(set(offered) & set(NODES)) == NODES
    start = host.process.log_text().split("To see the GUI")[0]  # what other tests provoke comes later
    lines = [line for line in start.splitlines() if "ID-EA" in line]
    assert all(re.match(r"(\[INFO\])?\s*[\d.]+ seconds: ", line) for line in lines), lines


def test_the_probe_reaches_the_pack_inside_the_host(host, graph):
    assert set(NODES) <= set(host.probe(graph, "basics:loaded")["nodes"])


def test_a_stock_graph_gives_the_same_latent_three_times(host, graph):
    sampler, _ = stock_graph(graph, host.checkpoint())
    digests = set()
    for _ in range(3):
        host.client.free()  # nothing may come from the cache
        digests.add(host.probe(graph, "basics:digest", a=sampler[0])["a"])
    assert len(digests) == 1


def test_a_picture_comes_out_and_its_nodes_are_timed(host, graph):
    sampler, saved = stock_graph(graph, host.checkpoint(), seed=2)
    execution = host.run(graph)
    (picture,) = execution.pictures(saved.id)
    assert host.client.picture(picture).startswith(b"\x89PNG")
    assert execution.seconds[sampler.id] > 0


def test_a_graph_the_host_refuses_is_explained(host, graph):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name="nowhere.safetensors")
    graph.add("VAEDecode", samples=loader[0], vae=loader[2])
    graph.add("PreviewImage", images=["2", 0])
    with pytest.raises(PromptRejectedError, match="nowhere.safetensors"):
        host.run(graph)
