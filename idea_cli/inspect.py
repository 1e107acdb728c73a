"""``idea-engine inspect``: what an identity file says of itself."""
from __future__ import annotations

import argparse
import json

NAME = "inspect"
SUMMARY = "Say what an identity file holds: trigger, model family, recipe, licence, consent, tensors."
EPILOG = """\
example:
  idea-engine inspect anna.safetensors
  idea-engine inspect anna.safetensors --json
"""
_LONGEST = 1000  # characters of a note


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="an identity file")
    parser.add_argument("--json", action="store_true", help="print JSON for programs to read")


def run(options: argparse.Namespace) -> int:
    from idea_engine.files.file_size import shown_size
    from idea_engine.files.foreign_text import shown
    from idea_engine.identity.file import inspect_identity

    found = inspect_identity(options.file)
    if options.json:
        print(json.dumps(found, indent=1))
        return 0
    config = found["config"]
    course = config.get("losses")
    losses = [loss for loss in (course if isinstance(course, list) else ()) if isinstance(loss, (int, float))]
    trained = ", ".join(f"{name} {config[name]}" for name in ("steps", "batch", "resolution", "seed") if name in config)
    lines = {
        "trigger": found["trigger"],
        "for": found["family"],
        "made by": found["method"],
        "trained": trained,
        "loss": f"{losses[0]:.4f} at the first step, {losses[-1]:.4f} at the last" if losses else "",
        "pseudo-tokens": found["pseudo_tokens"],
        "face recognizer": found["recognizer"],
        "licence of it": found["licence"],
        "consent": found["consent"],
        "size": f"{shown_size(found['bytes'])}, {len(found['tensors'])} tensors",
        "face stored": "yes (biometric data)" if "face.embedding" in found["tensors"] else "no",
    }
    width = max(map(len, lines))
    print("\n".join(f"{label.ljust(width)}  {shown(value, _LONGEST)}" for label, value in lines.items() if value != ""))
    return 0
