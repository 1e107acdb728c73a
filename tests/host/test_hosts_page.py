"""docs/hosts.md tells the truth of every ComfyUI that is found: what it says a version has is there, and what came later is not."""
import hosts_page


def test_this_comfyui_has_the_names_that_the_page_says_it_has(host, graph):
    names = {name: row.has(hosts_page.version_of(host.process.host.version)) for row in hosts_page.rows() for name in row.names}
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    absent = set(host.probe(graph, "host_names:absent", {"names": list(names)}, a=loader[0], b=loader[1], c=loader[2])["absent"])
    lacking = sorted(name for name, has in names.items() if has is True and name in absent)
    early = sorted(name for name, has in names.items() if has is False and name not in absent)
    assert (lacking, early) == ([], []), f"{host.id} lacks {lacking}, and has {early} before docs/hosts.md says so"
