"""Every node has a help page, and the page speaks of everything the node shows. Read with ast: no host is needed."""
import ast
import re
from pathlib import Path

import pytest
from PIL import Image

import idea_engine

ROOT = Path(idea_engine.__file__).parent.parent
NODES, PAGES = ROOT / "nodes", ROOT / "web" / "docs"
PICTURES = PAGES / "images"
WORKFLOWS = {path.stem for path in (ROOT / "example_workflows").glob("*.json")}


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _assigned(body: list[ast.stmt], name: str) -> ast.expr:
    return next(s.value for s in body if isinstance(s, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in s.targets))


def _node_classes() -> dict[str, ast.ClassDef]:
    """Node id → its class."""
    classes = {c.name: c for path in NODES.glob("*.py") for c in _parse(path).body if isinstance(c, ast.ClassDef)}
    mapping = _assigned(_parse(NODES / "__init__.py").body, "NODE_CLASS_MAPPINGS")
    return {key.value: classes[value.id] for key, value in zip(mapping.keys, mapping.values)}


def _inputs(node: ast.ClassDef) -> list[str]:
    declaration = next(f for f in node.body if isinstance(f, ast.FunctionDef) and f.name == "INPUT_TYPES")
    returned = next(s.value for s in ast.walk(declaration) if isinstance(s, ast.Return))
    groups = {key.value: group for key, group in zip(returned.keys, returned.values)}
    return [key.value for kind in ("required", "optional") if kind in groups for key in groups[kind].keys]


def _outputs(node: ast.ClassDef) -> list[str]:
    return list(ast.literal_eval(_assigned(node.body, "RETURN_NAMES")))


CLASSES = _node_classes()


@pytest.fixture(params=sorted(CLASSES))
def node_id(request):
    return request.param


def _section(node_id: str, title: str) -> str:
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
    return page.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def test_every_page_belongs_to_a_node():
    assert {page.stem for page in PAGES.glob("*.md")} == set(CLASSES)


def test_the_page_explains_every_input_in_the_order_of_the_node(node_id):
    explained = [line.split("`")[1] for line in _section(node_id, "Inputs").splitlines() if line.startswith("| `")]
    wanted = _inputs(CLASSES[node_id])
    assert wanted or "\nNone.\n" in f"\n{_section(node_id, 'Inputs')}\n"
    assert [name for name in explained if name in wanted] == wanted


def test_the_page_explains_every_output(node_id):
    explained = [line.split("`")[1] for line in _section(node_id, "Outputs").splitlines() if line.startswith("| `")]
    assert explained == _outputs(CLASSES[node_id])


def test_the_page_has_an_example_and_the_cures_of_common_mistakes(node_id):
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
    assert "\n## Example" in page and "\n## Common mistakes\n" in page


def test_the_example_is_also_told_for_the_model_that_ships(node_id):
    """Everybody can try it, for nothing is downloaded: with values, and with the names of the nodes around this one."""
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
    example = page.split("\n## Example", 1)[1].split("\n## ", 1)[0]
    told = example.partition("**On the demo model**")[2]
    assert re.search(r"\*\*[A-Z][\w ]+\*\*", told) and re.search(r"`[^`]+`", told)


def test_the_page_shows_the_node_above_its_inputs(node_id):
    head = (PAGES / f"{node_id}.md").read_text(encoding="utf-8").split("\n## Inputs\n")[0]
    (said, shown), = re.findall(r"!\[([^\]]*)\]\(([^)]*)\)", head)
    assert said and shown == f"images/{node_id}.png"  # the page is served from docs/, and its pictures beside it
    with Image.open(PAGES / shown) as picture:
        picture.load()
        assert picture.width >= 380 and picture.height >= 100  # a whole node
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 8  # not an empty canvas


def test_the_pictures_are_small_and_each_belongs_to_a_node():
    files = list(PICTURES.iterdir())
    assert {file.stem for file in files} == set(CLASSES)
    assert sum(file.stat().st_size for file in files) < 1.5e6  # everybody who installs the pack gets them


def test_workflows_that_are_named_exist(node_id):
    page = (PAGES / f"{node_id}.md").read_text(encoding="utf-8")
    assert set(re.findall(r"[*`'](\d+ — [^*`']+)[*`']", page)) <= WORKFLOWS
