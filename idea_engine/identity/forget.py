"""Every trace of a person on this machine, found by name: identity files, hidden copies, unfinished and kept trainings, quickstart's folders."""
from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Iterable, Iterator

from ..errors import IdeaError
from ..files.tensor_file import open_tensors
from .file import load_identity
from .foreign_files import read_identity
from .operations import content_hash

QUICKSTART_PERSON = "anna"  # whoever is on the photograph
SUFFIXES = (".safetensors", ".bin", ".pt")
_DEPTH = 2  # folders below the one that is named
_KEPT = (".safetensors", ".partial")  # in the cache of trainings
_PERSONAL = ("input", "output", "temp", "models/idea", "user/idea", "host.log")  # in quickstart's folder; models and environments are not


@dataclass(frozen=True)
class Trace:
    """Attributes: path: a file or folder; what: what it is, in words."""

    path: Path
    what: str

    def remove(self) -> None:
        """Raises: OSError: it cannot be removed."""
        if self.path.is_dir() and not self.path.is_symlink():
            shutil.rmtree(self.path)
        else:
            self.path.unlink(missing_ok=True)


def plain_name(text: str) -> str:
    """'<anna>', 'anna.safetensors' and 'anna' → 'anna'."""
    name = text.strip().strip("<>")
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in SUFFIXES else name


def quickstart_folder() -> Path:
    """Where quickstart works, by the rule of ``launcher/cache.py``, which is not installed with the engine."""
    if chosen := os.environ.get("IDEA_CACHE"):
        return Path(chosen).expanduser().absolute() / "quickstart"
    home = Path.home()
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = home / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return caches / "id-ea" / "quickstart"


def traces(name: str, folders: Iterable[Path], hosts: Iterable[Path] = ()) -> list[Trace]:
    """What of a person lies in folders of identities, below them, and in the base directories of hosts.

    Args:
        name: of the identity file, without its ending; also the trigger's word.
        folders: of identities; what lies beside an identity (previews, hidden copies) is found with it.
        hosts: ComfyUI's folders, with ``models/idea`` and the cache of trainings; and quickstart's own, which are emptied of all personal
            data when the person is in them, because photographs there carry other names.
    """
    hosts = [host for host in hosts if host.is_dir()]
    quick = quickstart_folder()
    found: dict[Path, Trace] = {}
    places = list(dict.fromkeys([*folders, *(host / "models" / "idea" for host in hosts)]))
    for place in places:
        for trace in _in_folder(name, place):
            found.setdefault(trace.path.absolute(), trace)
    hashes = {digest for trace in found.values() if trace.what == "identity" and (digest := _hash(trace.path))}
    for cache in _caches(hosts):
        for trace in _in_cache(name, cache, hashes):
            found.setdefault(trace.path.absolute(), trace)
    for host in hosts:
        # A quickstart that was stopped early has kept a photograph, and nothing yet that has a name.
        unnamed = name == QUICKSTART_PERSON and not any(path.suffix.lower() in SUFFIXES for path in (host / "models" / "idea").rglob("*"))
        if quick in host.parents and (unnamed or any(host in path.parents for path in found)):
            for part in _PERSONAL:
                if (host / part).exists():
                    found = {path: trace for path, trace in found.items() if host / part not in path.parents}
                    found[host / part] = Trace(host / part, "quickstart's photographs, identities, trainings and pictures")
    return list(found.values())


def quickstart_hosts() -> list[Path]:
    """The base directory of every host that quickstart has used."""
    with suppress(OSError):
        return sorted(path for path in quickstart_folder().iterdir() if path.is_dir())
    return []


def _in_folder(name: str, place: Path) -> Iterator[Trace]:
    """Of a folder of identities and those in it, a few levels deep; hidden folders of other programs are not looked into."""
    stem = re.escape(name)
    hidden = re.compile(rf"\.{stem}-[0-9a-f]{{12}}\.partial|\.\.?{stem}-(?:[0-9a-f]{{12}}-)?[a-z0-9_]{{8}}\.tmp|\.{stem}\.lock")
    copy = re.compile(rf"\.\.?{stem}(?:-[0-9a-f]{{12}})?-[0-9a-f]{{16}}\.idea-part")
    preview = re.compile(rf"{stem}-\d+\.png")
    for folder, below, files in os.walk(place):
        for part in [part for part in below if copy.fullmatch(part)]:
            yield Trace(Path(folder, part), "hidden copy of a save that was killed")
        deep = len(Path(folder).relative_to(place).parts) >= _DEPTH
        below[:] = [part for part in below if not deep and not part.startswith(".")]
        for file in files:
            path = Path(folder, file)
            if path.suffix.lower() in SUFFIXES and path.stem == name and _is_identity(path):
                yield Trace(path, "identity")
            elif hidden.fullmatch(file):
                yield Trace(path, "unfinished training" if file.endswith(".partial") else "left by a save that was killed")
            elif preview.fullmatch(file) and path.parent.name == "previews":
                yield Trace(path, "preview of the training")


def _caches(hosts: Iterable[Path]) -> list[Path]:
    bases = [base for host in hosts for base in (host / "user", host / "models")]
    return [base / "idea" / "cache" for base in (*bases, Path(tempfile.gettempdir())) if (base / "idea" / "cache").is_dir()]


def _in_cache(name: str, cache: Path, hashes: set[str]) -> Iterator[Trace]:
    """Trainings of the person by trigger or content, and unfinished ones that do not say whose they are."""
    for path in sorted(cache.iterdir()):
        if path.suffix in _KEPT and path.is_file():
            whose = _trigger(path)
            if whose == f"<{name}>" or path.suffix == ".partial" and not whose:
                yield Trace(path, "kept training" if path.suffix == ".safetensors" else "unfinished training")
            elif path.suffix == ".safetensors" and hashes and _hash(path) in hashes:
                yield Trace(path, "kept training")
        elif path.name.endswith(".idea-part"):
            yield Trace(path, "hidden copy of a save that was killed")


def _trigger(path: Path) -> str:
    """The trigger in a file's header, '' where there is none."""
    try:
        with open_tensors(path) as (metadata, _):
            return metadata.get("idea.trigger", "")
    except (OSError, ValueError):
        return ""


def _is_identity(path: Path) -> bool:
    """Whether a file with the person's name is an identity, or too damaged to be anything else; a checkpoint or a text is not."""
    if path.is_symlink() and not path.exists():
        return True
    try:
        read_identity(path)
    except IdeaError:
        return bool(_trigger(path)) or path.stat().st_size == 0
    return True


def _hash(path: Path) -> str:
    """The identity's content hash, '' where it cannot be read."""
    try:
        return content_hash(load_identity(path))
    except IdeaError:
        return ""
