"""Where files live: the only place that knows the host's ``folder_paths``."""
from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from ...idea_engine.errors import EnhancerFileError, FaceCLIPFileError, FaceModelError, IdentityFileError
from ...idea_engine.faceclip.checkpoint import SUFFIXES as FACECLIP_SUFFIXES
from ...idea_engine.faces.pack import DOWNLOADABLE, onnx_folders
from ...idea_engine.files.cache_folder import trim
from ...idea_engine.files.file_names import leads_out, portable_parts, walk, write_advice
from ...idea_engine.files.foreign_text import shown

FACE_FOLDER, IDENTITY_FOLDER, FACECLIP_FOLDER = "insightface", "idea", "faceclip"
ENHANCERS = "enhancers"  # a folder inside each of the identities'
DEMO = "Portrait World (demo)"  # what ships with the pack, in every dropdown
_PACK = Path(__file__).resolve().parents[2]
IDENTITY_SUFFIXES = (".safetensors", ".bin", ".pt")
CACHE_BYTES = 4 << 30  # of kept trainings: hundreds of people, or a few of the recipe 'paper' on SDXL


def host_version() -> str:
    """The version of ComfyUI that runs, '0.3.64'; 'of an unknown version' where it does not say."""
    try:
        from comfyui_version import __version__
    except ImportError:
        return "of an unknown version"
    return __version__


def register_folders() -> None:
    """Make ``models/insightface``, ``models/idea`` and ``models/faceclip`` known to the host, behind what extra_model_paths.yaml says of them."""
    import folder_paths

    for name in (FACE_FOLDER, IDENTITY_FOLDER, FACECLIP_FOLDER):
        folder_paths.add_model_folder_path(name, os.path.join(folder_paths.models_dir, name))
    # So that the stock prompt embedding:anna finds models/idea/anna.safetensors.
    for folder in folder_paths.get_folder_paths(IDENTITY_FOLDER):
        folder_paths.add_model_folder_path("embeddings", folder)


def face_folders() -> list[Path]:
    """Every folder in which the host keeps insightface packs."""
    return _folders(FACE_FOLDER)


def face_packs() -> dict[str, Path]:
    """Display name → folder of everything that may be a face pack: a folder with ONNX files, at any depth.

    What the files are is read when the pack is loaded; this list is asked for whenever the host describes its nodes. insightface's own
    ``models`` folder and the doubled folder of a badly packed archive do not show in the name, so workflows keep working when either
    comes or goes. The pack that ships with us, for drawn faces, is always there and comes last.
    """
    packs: dict[str, Path] = {}
    for root in face_folders():
        for folder, files in onnx_folders(root).items():
            parts = list(folder.relative_to(root).parts)
            if parts and parts[0] == "models":
                parts = parts[1:]
            if len(parts) > 1 and parts[-1] == parts[-2]:
                parts = parts[:-1]
            # Loose files in the root are other packs' models (inswapper_128.onnx) unless there are at least two.
            if parts or len(files) > 1:
                packs.setdefault("/".join(parts) or root.name, folder)
    packs[DEMO] = _PACK / "portrait_world" / "assets" / "face_pack"
    return packs


def face_pack_names() -> list[str]:
    """For the dropdown: what the user has, the pack that can be downloaded when the user asks for it, the one for drawn faces."""
    *own, demo = face_packs()
    return list(dict.fromkeys((*own, DOWNLOADABLE, demo)))


def example_photograph():
    """(1, H, W, 3) float32 IMAGE in 0..1: the photograph that ships with the pack, of a drawn person."""
    from ...idea_engine.files.pictures import read_photo

    return read_photo(_PACK / "example_workflows" / "anna.png")[None]


def face_pack_folder(name: str) -> Path:
    """The folder of a pack by its display name.

    Raises:
        FaceModelError: there is none of that name; the sentence lists those found and the folders searched.
    """
    packs = face_packs()
    if name in packs:
        return packs[name]
    raise FaceModelError(
        f"There is no face pack named {shown(name)}. Found: {', '.join(packs) or 'none'}. Searched with every folder below: "
        f"{', '.join(map(str, face_folders()))}. Put an insightface pack (a folder with a detector and a recognizer, as .onnx) there"
        f"{', or turn on allow_download in Load Face Model' if name == DOWNLOADABLE else ', or choose another pack in Load Face Model'}."
    )


def identity_files() -> list[str]:
    """Every identity file below every ``idea`` folder, with / between folders, sorted."""
    return [name for name in _files_below(IDENTITY_FOLDER, IDENTITY_SUFFIXES) if not name.startswith(f"{ENHANCERS}/")]


def enhancers() -> dict[str, Path]:
    """Display name → file of every enhancer in models/idea/enhancers, sorted; the one that ships with us, for drawn faces, comes last."""
    found: dict[str, Path] = {}
    for name in _files_below(IDENTITY_FOLDER, (".safetensors",)):
        if name.startswith(f"{ENHANCERS}/"):
            found[name.removeprefix(f"{ENHANCERS}/")] = next(path for root in _folders(IDENTITY_FOLDER) if (path := root / name).is_file())
    shipped = _PACK / "portrait_world" / "assets" / "enhancer.safetensors"
    return {**found, DEMO: shipped} if shipped.is_file() else found


def enhancer_path(name: str) -> Path:
    """The file behind a name of :func:`enhancers`.

    Raises:
        EnhancerFileError: there is none of that name.
    """
    known = enhancers()
    if name in known:
        return known[name]
    raise EnhancerFileError(
        f"There is no enhancer {shown(name)} in {', '.join(str(root / ENHANCERS) for root in _folders(IDENTITY_FOLDER))}. Put the file there, or set enhancer in the "
        f"ID Enhancer node to automatic or names only. Found: {', '.join(known) or 'none'}."
    )


def faceclip_files() -> list[str]:
    """Every FaceCLIP encoder below every ``faceclip`` folder, with / between folders, sorted."""
    return _files_below(FACECLIP_FOLDER, FACECLIP_SUFFIXES)


def faceclip_path(name: str) -> Path:
    """The file behind a name of :func:`faceclip_files`.

    Raises:
        FaceCLIPFileError: there is no file of that name inside a faceclip folder.
    """
    roots = _folders(FACECLIP_FOLDER)
    if name in faceclip_files():  # so that no name leads out of the folders
        for path in (root / name for root in roots):
            if path.is_file():  # a link may lead to nothing
                return path
    raise FaceCLIPFileError(
        f"There is no FaceCLIP file {shown(name)} in {', '.join(map(str, roots))}. Put face_clip_encoder.pt of ByteDance/FaceCLIP there (CC BY-NC 4.0: "
        "non-commercial use only), or choose another file in Load FaceCLIP."
    )


def identity_path(name: str) -> Path:
    """The file behind a name of :func:`identity_files`.

    Raises:
        IdentityFileError: the name leads out of the folder, or there is no such file.
    """
    parts = _inside(name)
    for root in _folders(IDENTITY_FOLDER):
        path = root.joinpath(*parts)
        with suppress(OSError):  # a path that is too long for the disk
            if path.is_file():
                return path
    raise IdentityFileError(
        f"There is no identity file {shown(name)} in {', '.join(map(str, _folders(IDENTITY_FOLDER)))}. Choose another file in Load Identity, or put it there."
    )


def new_identity_path(name: str) -> Path:
    """Where Save Identity writes: ``name`` below the first ``idea`` folder, which is made if need be.

    Raises:
        IdentityFileError: the name is empty, leads out of the folder or cannot be a file name; or the folder cannot be made.
    """
    root = _folders(IDENTITY_FOLDER)[0]
    path = root.joinpath(*_inside(name))
    if leads_out(path.parent, root):
        raise IdentityFileError(
            f"The filename '{shown(name, 80)}' leads through a link out of {root}, and nothing is written there. Change filename in Save Identity, or name the "
            "link's folder as a folder for idea in extra_model_paths.yaml."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise IdentityFileError(
            f"The folder {path.parent} cannot be made: {error.strerror or error}. {write_advice(error, path.parent)} Another folder for idea can be named in "
            "extra_model_paths.yaml."
        ) from error
    return path


def training_cache() -> Path:
    """Where results of training are kept between restarts: ``idea/cache`` in the host's user directory, made if need be."""
    import folder_paths

    user = folder_paths.get_user_directory() if hasattr(folder_paths, "get_user_directory") else getattr(folder_paths, "user_directory", None)
    for base in (user, folder_paths.models_dir, tempfile.gettempdir()):
        if base is None:
            continue
        folder = Path(base) / "idea" / "cache"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:  # a read-only installation
            continue
        if os.access(folder, os.W_OK):
            return folder
    return Path(tempfile.mkdtemp(prefix="idea-cache-"))


def trim_training_cache(limit: int = CACHE_BYTES) -> None:
    """Delete the trainings that were used longest ago until the rest takes at most ``limit`` bytes; what is lost is time, not a person."""
    trim(training_cache(), limit)


def _files_below(folder_name: str, suffixes: tuple[str, ...]) -> list[str]:
    names = set()
    for root in _folders(folder_name):
        for folder, files in walk(root):
            # A link to nothing is no file.
            names |= {(folder / file).relative_to(root).as_posix() for file in files if file.lower().endswith(suffixes) and os.path.isfile(folder / file)}
    return sorted(names)


def advice_folders() -> list[Path]:
    """Where checks of base models are kept, of those folders that are there."""
    from ...idea_engine.judging.base_advice import FOLDER

    return [folder / FOLDER for folder in _folders(IDENTITY_FOLDER) if (folder / FOLDER).is_dir()]


def advice_home() -> Path:
    """The ``idea`` folder in which Check Model keeps what it advises."""
    return _folders(IDENTITY_FOLDER)[0]


def _folders(name: str) -> list[Path]:
    import folder_paths

    register_folders()
    return [Path(folder) for folder in folder_paths.get_folder_paths(name)]


def _inside(name: str) -> tuple[str, ...]:
    """The parts of a relative path that stays below its folder, on every operating system."""
    try:
        return portable_parts(name)
    except ValueError as error:
        if str(error) == "is empty":
            raise IdentityFileError("The filename of the identity is empty. Type a name such as anna.") from None
        raise IdentityFileError(
            f"The filename '{shown(name, 80)}' is not allowed: it {error}. Expected a name such as anna or family/anna, inside models/{IDENTITY_FOLDER}. "
            "Change it in Save Identity or Load Identity."
        ) from None
