"""What ComfyUI's registry leaves out is nothing that the nodes import or read."""
import ast
from pathlib import Path

import idea_engine

ROOT = Path(idea_engine.__file__).parent.parent
IGNORED = [line for line in (ROOT / ".comfyignore").read_text(encoding="utf-8").splitlines() if line]


def is_ignored(path: Path) -> bool:
    name = path.relative_to(ROOT).as_posix()
    return any(name == entry or (entry.endswith("/") and name.startswith(entry)) for entry in IGNORED)


def neighbours(path: Path):
    """The files of this repository that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.parents[node.level - 1]
            base = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
            for candidate in (base, *(base / alias.name for alias in node.names)):
                yield from (found for found in (candidate.with_suffix(".py"), candidate / "__init__.py") if found.is_file())
    # a module is not imported without the packages that it lies in
    yield from (found for folder in path.parents if ROOT in folder.parents and (found := folder / "__init__.py").is_file())


def shipped_by_import() -> set[Path]:
    found, todo = set(), [ROOT / "__init__.py", *(ROOT / "nodes").rglob("*.py")]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo.extend(neighbours(path))
    return found


def test_the_walk_reaches_the_portrait_world():
    assert {ROOT / "portrait_world" / "comfy_model.py", ROOT / "portrait_world" / "networks" / "text_encoder.py", ROOT / "idea_engine" / "training" / "loop.py"} <= shipped_by_import()


def test_nothing_that_the_nodes_import_is_left_out():
    assert [path for path in shipped_by_import() if is_ignored(path)] == []


def test_of_the_portrait_world_only_what_the_nodes_import_is_shipped():
    """How it is drawn and trained stays in the repository."""
    drawn = {path for path in (ROOT / "portrait_world").rglob("*.py") if not is_ignored(path)}
    assert drawn - shipped_by_import() == {ROOT / "portrait_world" / "__init__.py"} - shipped_by_import()


def test_every_entry_still_names_something():
    assert [entry for entry in IGNORED if not (ROOT / entry).exists() and entry != "quickstart-output/"] == []


def test_the_demo_model_its_face_pack_and_the_example_photograph_are_shipped():
    assets = ROOT / "portrait_world" / "assets"
    needed = [assets / f"{name}.safetensors" for name in ("denoiser", "autoencoder", "text_encoder")]
    needed += [*(assets / "face_pack").iterdir(), ROOT / "example_workflows" / "anna.png"]
    assert all(path.is_file() and not is_ignored(path) for path in needed)
