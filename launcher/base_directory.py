"""The folder a host works in: models, input, output and custom nodes of its own, so that an artist's ComfyUI stays untouched."""
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .errors import LauncherError

FOLDERS = ("custom_nodes", "input", "output", "temp", "user", "models/checkpoints", "models/embeddings", "models/idea",
           "models/insightface/models")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.pyc", ".pytest_cache", "quickstart-output", "node_modules")


@dataclass(frozen=True)
class BaseDirectory:
    """The folders of one host, below `root`."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "BaseDirectory":
        """Make the folders that are missing."""
        for folder in FOLDERS:
            (root / folder).mkdir(parents=True, exist_ok=True)
        return cls(root)

    def add_node_pack(self, folder: Path, name: str = "") -> Path:
        """Put a folder of custom nodes where the host looks for them."""
        return place(folder, self.root / "custom_nodes" / safe_name(name or folder.name))

    def add_checkpoint(self, file: Path) -> str:
        """Put a checkpoint in its models folder; return the name the host's loader lists."""
        return place(file, self.root / "models" / "checkpoints" / safe_name(file.name)).name

    def add_identity(self, file: Path) -> str:
        """Put an identity file where `IDEA_LoadIdentity` looks; return the name it lists."""
        return place(file, self.root / "models" / "idea" / safe_name(file.name)).name

    def add_face_pack(self, folder: Path, name: str = "") -> str:
        """Put a folder of insightface models where `IDEA_LoadFaceModel` looks; return the name it lists."""
        return place(folder, self.root / "models" / "insightface" / "models" / safe_name(name or folder.name)).name


def safe_name(name: str) -> str:
    """Return `name` if it is a plain file name on every system. Raises LauncherError otherwise."""
    if not name or name in (".", "..") or name != Path(name).name or set(name) & set('\\/:*?"<>|\0'):
        raise LauncherError(f"'{name}' is not a plain file name; rename the file so that it has no folder and none of \\ / : * ? \" < > | in it.")
    return name


def place(source: Path, target: Path) -> Path:
    """Make `target` show `source`: a symbolic link where the system allows one, else a fresh copy."""
    source = source.resolve()
    if not source.exists():
        raise LauncherError(f"{source} does not exist.")
    if target.resolve() == source:
        return target
    _remove(target)
    try:
        target.symlink_to(source, target_is_directory=source.is_dir())
    except OSError:  # Windows without developer mode, some network drives
        if source.is_dir():
            shutil.copytree(source, target, ignore=NOT_COPIED)
        else:
            _link_or_copy(source, target)
    return target


def _link_or_copy(source: Path, target: Path):
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _remove(target: Path):
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        if sys.platform == "win32" and hasattr(os.path, "isjunction") and os.path.isjunction(target):
            target.rmdir()
        else:
            shutil.rmtree(target)
