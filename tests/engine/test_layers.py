"""Two floors: the engine never imports the host, nothing heavy is imported before its first use, and no arrow between folders points upward."""
import ast
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = {"comfy", "folder_paths", "server", "nodes", "execution", "latent_preview", "comfy_api", "comfy_execution"}
HEAVY = {"insightface", "onnxruntime", "onnx", "diffusers", "transformers", "matplotlib", "cv2", "scipy", "PIL", "safetensors"}


def imports(path: Path, top_only: bool):
    """Top-level package names imported by a file; with ``top_only`` only what runs when the file is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module.split(".")[0]
        if not (top_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))):
            todo.extend(ast.iter_child_nodes(node))


ENGINE = sorted((ROOT / "idea_engine").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))


@pytest.mark.parametrize("path", ENGINE, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_engine_never_imports_the_host(path):
    assert not set(imports(path, top_only=False)) & HOST


@pytest.mark.parametrize("path", [p for p in NODES if p.parent.name != "host"], ids=lambda p: str(p.relative_to(ROOT)))
def test_only_the_host_room_knows_the_host(path):
    assert not set(imports(path, top_only=False)) & HOST


@pytest.mark.parametrize("path", ENGINE + NODES + [ROOT / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_heavy_is_imported_at_import(path):
    assert not set(imports(path, top_only=True)) & HEAVY


@pytest.mark.parametrize("path", NODES + [ROOT / "__init__.py"], ids=lambda p: str(p.relative_to(ROOT)))
def test_the_pack_does_not_print(path):
    calls = [n for n in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(n, ast.Call)]
    assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"]


HOUSE = ("idea_engine", "idea_cli", "nodes", "portrait_world", "launcher", "tools", "benchmarks")
# The folders of the engine, the lowest first: each imports only those before it. What lies beside them (errors) is below them all.
FLOORS = ("files", "judging", "prompts", "faceclip", "faces", "sheets", "backends", "identity", "methods", "training", "enhancer", "applying")
Name = tuple[str, ...]


def module_name(path: Path) -> Name:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


MODULES = {module_name(path): path for folder in HOUSE for path in sorted((ROOT / folder).rglob("*.py"))}


def modules_imported(name: Name) -> set[Name]:
    """The modules of this repository that one of them imports, anywhere in it, also inside functions; not what only a type checker reads."""
    path, found = MODULES[name], set()
    package = name if path.name == "__init__.py" else name[:-1]
    todo: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while todo:
        node = todo.pop()
        if not (isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")):
            todo.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.ImportFrom):
            base = (*(package[:len(package) - node.level + 1] if node.level else ()), *(node.module.split(".") if node.module else ()))
            found |= {base + (alias.name,) if base + (alias.name,) in MODULES else base for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {tuple(alias.name.split(".")) for alias in node.names}
    return {other for other in found if other in MODULES} - {name}


GRAPH = {name: modules_imported(name) for name in MODULES}


def folder(name: Name) -> str:
    """The folder of its house in which a module lies, or the house."""
    return ".".join(name[:2]) if len(name) > 2 or (len(name) == 2 and MODULES[name].name == "__init__.py") else name[0]


def room(name: Name) -> str:
    """The same, but what lies beside the folders of a house is a room of its own: `launcher.cache` is below, `launcher.command_line` above them."""
    return folder(name) if folder(name) != name[0] or name[0] in ("idea_cli", "tools", "benchmarks") else ".".join(name)


def arrows(graph: dict[Name, set[Name]], of: Callable[[Name], str]) -> dict[str, set[str]]:
    """Folder (or room) → those whose modules its own import."""
    found: dict[str, set[str]] = {}
    for name, others in graph.items():
        found.setdefault(of(name), set()).update(of(other) for other in others if of(other) != of(name))
    return found


def circle(graph: dict) -> list:
    """The members of one circle of a graph, in order, or nothing."""
    done: set = set()

    def visit(name, above: list) -> list:
        if name in above:
            return above[above.index(name):]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := visit(other, [*above, name]):
                return found
        done.add(name)
        return []

    return next(filter(None, (visit(name, []) for name in sorted(graph))), [])


def test_a_circle_is_found_where_there_is_one():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"] and circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_one_another_in_a_circle():
    assert [".".join(name) for name in circle(GRAPH)] == []


def test_no_folders_import_one_another_in_a_circle():
    assert circle(arrows(GRAPH, room)) == []


@pytest.mark.parametrize("name", [name for name in MODULES if name[0] == "idea_engine" and name != ("idea_engine", "__main__")], ids=".".join)
def test_the_engine_knows_nothing_that_is_built_on_it(name):
    """``__main__`` is the old door of the command line: nothing imports it, and the registry does not ship it."""
    assert {other[0] for other in GRAPH[name]} <= {"idea_engine"}


def test_every_folder_of_the_engine_imports_only_those_below_it():
    folders = {name[1] for name in MODULES if name[0] == "idea_engine" and len(name) > 2}
    assert folders == set(FLOORS), "a new folder takes its place in FLOORS"
    beside = {path.stem for path in (ROOT / "idea_engine").glob("*.py")}
    assert beside == {"__init__", "__main__", "errors"}, "a module of the engine lies in one of its folders"
    upward = [
        f"{'.'.join(name)} → {'.'.join(other)}" for name, others in GRAPH.items() for other in others
        if len(name) > 2 and len(other) > 2 and name[0] == other[0] == "idea_engine" and FLOORS.index(other[1]) > FLOORS.index(name[1])
    ]
    assert upward == [] and GRAPH["idea_engine", "errors"] == set()


def test_the_houses_stand_on_one_another():
    """The engine below everything, the Portrait World on it, the front doors on both; the launcher stands alone, and the tools on it."""
    below = {
        "idea_engine": set(), "portrait_world": {"idea_engine"}, "idea_cli": {"idea_engine", "portrait_world"}, "nodes": {"idea_engine", "portrait_world"},
        "launcher": set(), "tools": {"launcher", "portrait_world"}, "benchmarks": {"idea_engine", "portrait_world", "launcher"},
    }
    found = {house: {other[0] for name, others in GRAPH.items() if name[0] == house and name[1:] != ("__main__",) for other in others} - {house} for house in HOUSE}
    assert {house: others - below[house] for house, others in found.items()} == {house: set() for house in HOUSE}


def test_the_arrows_between_the_folders_are_drawn():
    """With ``-s``: every folder, how many files it has, and what it imports."""
    graph = arrows(GRAPH, folder)
    lines = [f"{name} ({sum(folder(module) == name for module in MODULES)}) → {', '.join(sorted(graph[name])) or '·'}" for name in sorted(graph)]
    print("", *lines, f"{len(MODULES)} modules, {len(graph)} folders, {sum(map(len, graph.values()))} arrows", sep="\n")
    assert "idea_engine.training" in graph["nodes"] and "nodes" not in graph["idea_engine.training"]
