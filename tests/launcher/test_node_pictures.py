"""The graph that is photographed for the help pages. That it runs is seen when the pictures are made, in a browser."""
from launcher.requirements import CHECKOUT
from tools.node_pictures import graph, picture_names

PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (CHECKOUT / "web" / "docs").glob("*.md")}


def explained(kind: str) -> set[str]:
    """The inputs that the help page of a node explains; another test holds them against the node."""
    section = PAGES[kind].split("\n## Inputs\n", 1)[1].split("\n## ", 1)[0]
    return {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}


def test_every_node_with_a_help_page_is_photographed():
    assert set(picture_names()) == set(PAGES)


def test_the_graph_sets_only_inputs_that_the_nodes_have():
    for placed in graph().values():
        if placed.kind in PAGES:
            assert set(placed.widgets) | set(placed.inputs) <= explained(placed.kind), placed.kind


def test_every_link_starts_at_a_node_of_the_graph():
    nodes = graph()
    links = [link for placed in nodes.values() for link in (*placed.inputs.values(), *placed.below.values())]
    assert links and all(source in nodes for source, _ in links)
