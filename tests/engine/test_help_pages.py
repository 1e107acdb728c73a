"""Every node has a help page, and the page speaks of everything the node shows. Read with ast: no host is needed."""
import ast
from pathlib import Path

import idea_engine
import pytest

ROOT = Path(idea_engine.__file__).parent.parent
NODES, PAGES = ROOT / "nodes", ROOT / "web" / "docs"


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
