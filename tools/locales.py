"""The nodes in other languages: `locales/<language>/nodeDefs.json`, which ComfyUI's frontend reads.

    python quickstart.py run python -m tools.locales

writes English anew from what a real ComfyUI says of the nodes, and names what the other languages lack or have too much. A translation is written
"""
import json
import sys

from launcher.requirements import CHECKOUT

LOCALES = CHECKOUT / "locales"
LANGUAGES = ("en", "zh", "ja", "ko")
PREFIX = "IDEA_"


def english(declared: dict) -> dict:
    """What a host's `/object_info` says of our nodes, in the shape of nodeDefs.json."""
    return {node_id: _definition(node) for node_id, node in sorted(declared.items()) if node_id.startswith(PREFIX)}


def _definition(node: dict) -> dict:
    inputs = {}
    for kind in ("required", "optional"):
        for name, (_, *options) in (node["input"].get(kind) or {}).items():
            inputs[name] = {"name": name, "tooltip": options[0]["tooltip"]}
    tooltips = node.get("output_tooltips") or [""] * len(node["output_name"])  # ComfyUI of June 2024 does not tell them
    outputs = {str(slot): {"name": name, "tooltip": tooltip} for slot, (name, tooltip) in enumerate(zip(node["output_name"], tooltips))}
    return {"display_name": node["display_name"], "description": node["description"], "inputs": inputs, "outputs": outputs}


def leaves(definitions: dict, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], str]:
    """Every text of a nodeDefs.json by where it stands."""
    found = {}
    for key, value in definitions.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return found


def read(language: str) -> dict:
    """The nodeDefs.json of a language."""
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def write(definitions: dict, language: str):
    """Write the nodeDefs.json of a language, first under another name."""
    path = LOCALES / language / "nodeDefs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(definitions, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def main() -> int:
    """Write English; return 1 if a language does not have the same places."""
    from launcher.session import any_host, session

    with session(any_host(pip=False)) as running:
        definitions = english(running.client.object_info())
    write(definitions, "en")
    wanted, complete = set(leaves(definitions)), True
    for language in LANGUAGES[1:]:
        found = set(leaves(read(language)))
        for places, word in ((wanted - found, "lacks"), (found - wanted, "has, and nobody asks for,")):
            for place in sorted(places):
                complete = False
                print(f"{language} {word} {'.'.join(place)}")
    return 0 if complete else 1


if __name__ == "__main__":
    sys.exit(main())
