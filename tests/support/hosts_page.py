"""The tables of docs/hosts.md, as its two tests read them."""
import re
from dataclasses import dataclass
from pathlib import Path

import idea_engine

PAGE = Path(idea_engine.__file__).parent.parent / "docs" / "hosts.md"
PRIVATE = "Private names"
_COLUMNS = "| name | used in | since | when it is gone |"
_OLDEST, _FORK_ONLY = "June 2024 or before", "fork of June 2024 only"
_MONTH = re.compile(r"[A-Z][a-z]+ 202[45]$")
_FORK = (0, 0, 1)  # its version, older than any release that is meant here
_BEFORE_RELEASES = (0, 3, 11)  # releases before it cannot be told from the history; no month stands for a later one


@dataclass(frozen=True)
class Row:
    """Attributes: section: the file of the pack that owns the names, or 'Private names'. files: those that use them."""

    section: str
    names: tuple[str, ...]
    files: tuple[str, ...]
    since: str
    gone: str

    def has(self, version: tuple[int, ...]) -> bool | None:
        """Whether a ComfyUI of this version has the names; None where the page leaves it open."""
        if self.since == _OLDEST:
            return True
        if self.since == _FORK_ONLY:
            return version == _FORK
        if _MONTH.match(self.since):
            return None if _FORK < version < _BEFORE_RELEASES else version > _FORK
        first = version_of(self.since.removeprefix("by "))
        return True if version >= first else None if self.since.startswith("by ") else False


def version_of(text: str) -> tuple[int, ...]:
    """'0.3.64' as (0, 3, 64); a ComfyUI that does not say is taken for a new one."""
    return tuple(map(int, re.findall(r"\d+", text))) or (999,)


def rows() -> list[Row]:
    """Every row of the page, in its order."""
    found, section = [], ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line.removeprefix("## ").strip("`")
        elif line.startswith("| `"):
            names, files, since, gone = (cell.strip() for cell in line.strip("|").split(" | "))
            found.append(Row(section, _quoted(names), tuple(map(_path, _quoted(files))), since, gone))
        elif line.startswith("|") and line != _COLUMNS and set(line) != {"|", "-"}:
            raise ValueError(f"docs/hosts.md has a line in a table that is no row: {line}")
    return found


def _quoted(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def _path(name: str) -> str:
    return name if "/" in name or name == "__init__.py" else f"nodes/host/{name}"
