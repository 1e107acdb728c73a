"""``idea-engine forget``: remove every trace of a person from this machine."""
from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

NAME = "forget"
SUMMARY = "Remove every trace of a person: identity files, hidden copies, kept and unfinished trainings, quickstart's folders; says what it removed."
EPILOG = """\
examples:
  idea-engine forget anna
  idea-engine forget anna --comfyui ~/ComfyUI
  idea-engine forget anna --in identities --dry-run

Looked for: in the current folder or those of --in, and below; in ComfyUI (--comfyui, else the one this pack is installed in, and those of the variable
COMFYUI_PATH); and in quickstart's own folders, where photographs and pictures go too (quickstart calls its person anna). Not removed: your own
photographs, pictures that were generated, identities under other names, and copies that you or others have made.
"""
_PACK = Path(__file__).resolve().parents[1]


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="of the identity file, which is also the word of its trigger: anna for anna.safetensors and <anna>")
    parser.add_argument("--in", dest="folders", action="append", default=[], metavar="DIR", help="a folder of identities; may be repeated (default: the current folder)")
    parser.add_argument("--comfyui", action="append", default=[], metavar="DIR", help="a ComfyUI's folder, or its base directory; may be repeated")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be removed")


def run(options: argparse.Namespace) -> int:
    from idea_engine.errors import IdentityFileError
    from idea_engine.files.foreign_text import shown
    from idea_engine.identity.forget import plain_name, quickstart_hosts, traces

    name = plain_name(options.name)
    if not name or set(name) & set("/\\"):
        raise IdentityFileError(f"'{shown(options.name, 60)}' is no name of a person. Give the name of the identity file, such as anna.")
    folders, hosts = [Path(folder) for folder in options.folders or ["."]], [Path(host) for host in options.comfyui]
    for folder in (*folders, *hosts):
        if not folder.is_dir():
            raise IdentityFileError(f"There is no folder {shown(folder)}.")
    found = traces(name, folders, [*hosts, *_own_hosts(), *quickstart_hosts()])
    failed = 0
    for trace in found:
        try:
            if not options.dry_run:
                trace.remove()
            print(f"{'would remove' if options.dry_run else 'removed'} {shown(trace.path, 1000)} ({trace.what})")
        except OSError as error:
            failed += 1
            print(f"idea-engine: {shown(trace.path, 1000)} could not be removed: {error.strerror or error}.", file=sys.stderr)
    if not found:
        print(f"Nothing of {shown(name)} was found.")
    return 2 if failed else 0


def _own_hosts() -> list[Path]:
    """The ComfyUI this pack is installed in, and those that the variable COMFYUI_PATH names."""
    named = [Path(entry) for entry in os.environ.get("COMFYUI_PATH", "").split(os.pathsep) if entry]
    return [_PACK.parent.parent, *named] if _PACK.parent.name == "custom_nodes" else named
