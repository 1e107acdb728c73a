"""docs/hosts.md is true of every ComfyUI that is found: what it says a version has is there, what came later is not."""
import hosts_page

NOWHERE = [
    "comfy.no_such_module.name", "comfy.utils.no_such_name", "ModelPatcher.no_such_name",
    "ModelPatcher.clone(no_such_name)", 'extra["no_such_name"]',
]


def test_this_comfyui_has_the_names_that_the_page_says_it_has(host, graph):
    version = hosts_page.version_of(host.process.host.version)
    names = {name: row.has(version) for row in hosts_page.rows() for name in row.names}
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    asked = {"names": [*names, *NOWHERE]}
    absent = set(host.probe(graph, "host_names:absent", asked, a=loader[0], b=loader[1], c=loader[2])["absent"])
    assert absent.issuperset(NOWHERE)
    lacking = sorted(name for name, has in names.items() if has is True and name in absent)
    early = sorted(name for name, has in names.items() if has is False and name not in absent)
    assert (lacking, early) == ([], []), f"{host.id} lacks {lacking}, and has {early} before docs/hosts.md says so"
