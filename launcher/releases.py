"""A released ComfyUI, downloaded by its tag; which commit that is, is written down beside it."""
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.request
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from .cache import cache_folder, locked
from .errors import LauncherError

REPOSITORY = "https://github.com/Comfy-Org/ComfyUI"
# As git lists tags; ^{} is the commit that a tag with a message points to.
TAG = r"([0-9a-f]{40})\s+refs/tags/(v?(\d+(?:\.\d+)+))(\^\{\})?\s"
GIT = "git"
SECONDS = {"list": 60, "download": 600}


@dataclass(frozen=True)
class Release:
    """One release of ComfyUI."""

    version: str  # such as 0.33.0
    tag: str
    commit: str  # the hash, 40 hexadecimal digits
    repository: str


def releases(repository: str = REPOSITORY) -> tuple[Release, ...]:
    """Return every release, the newest first; test versions such as v1.0.0-rc1 are none. Raises LauncherError."""
    asked = f"{repository}/info/refs?service=git-upload-pack"  # what git itself asks for
    listed = _with_git_or_without(
        lambda: _git(["ls-remote", "--tags", repository], SECONDS["list"]),
        lambda: _open(asked, SECONDS["list"]).read().decode("utf-8", "replace"),
        f"The releases of ComfyUI could not be listed from {repository}")
    found: dict[str, Release] = {}
    for commit, tag, version, peeled in re.findall(TAG, listed):
        if peeled or version not in found:
            found[version] = Release(version, tag, commit, repository)
    return tuple(sorted(found.values(), key=lambda release: [*map(int, release.version.split("."))], reverse=True))


def fetch_release(version: str | None = None, repository: str = REPOSITORY, say=print) -> Path:
    """Download a release, the newest one unless a version is given, into the cache; return its folder.

    What was downloaded before is not downloaded again. Raises LauncherError.
    """
    listed = releases(repository)
    wanted = (version or "").removeprefix("v")
    release = next((release for release in listed if wanted in ("", release.version)), None)
    if release is None:
        newest = ", ".join(release.version for release in listed[:5]) or "none"
        raise LauncherError(f"There is no release {wanted} of ComfyUI in {repository}; the newest are {newest}. "
                            "Choose another with --host-version.")
    folder = cache_folder() / f"ComfyUI-{release.version}"
    lock = folder.with_name("ComfyUI.lock")
    with locked(lock, waiting=lambda: say("Another run is downloading ComfyUI; waiting for it.")):
        if commit_written_down(folder) == release.commit and folder.is_dir():
            return folder
        say(f"Downloading ComfyUI {release.version} (commit {release.commit}) to {folder}")
        partial = folder.with_name("ComfyUI.partial")
        shutil.rmtree(folder, ignore_errors=True)
        got = _with_git_or_without(lambda: _clone(release, partial), lambda: _unpack_archive(release, partial),
                                   f"ComfyUI {release.version} could not be downloaded")
        if got != release.commit:
            shutil.rmtree(partial, ignore_errors=True)
            raise LauncherError(f"What {repository} gave as {release.tag} is commit {got or 'unknown'}, but the tag stands "
                                f"for {release.commit}. Nothing was kept; try again, or give a ComfyUI you have with "
                                "--host FOLDER.")
        _record(folder).write_text(json.dumps(asdict(release), indent=2) + "\n", encoding="utf-8")
        partial.rename(folder)
    return folder


def commit_written_down(folder: Path) -> str | None:
    """Return the hash of the commit that was downloaded into a folder; None if nothing was."""
    try:
        return json.loads(_record(folder).read_text(encoding="utf-8"))["commit"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _record(folder: Path) -> Path:
    return folder.with_name(folder.name + ".release.json")


def _with_git_or_without(with_git, without, failure: str) -> str:
    """Return what the first way that works returns: a Mac without its developer tools has a `git` that does nothing.

    Raises LauncherError with the reason of each way.
    """
    reasons = []
    for way in ([with_git] if shutil.which(GIT) else []) + [without]:
        try:
            return way()
        except (OSError, ValueError, subprocess.SubprocessError, zipfile.BadZipFile) as error:
            reasons.append(f"{'git: ' if way is with_git else ''}{_reason(error)}")
    raise LauncherError(f"{failure}: {'; '.join(reasons)}. Give a ComfyUI you have with --host FOLDER.")


def _clone(release: Release, folder: Path) -> str:
    shutil.rmtree(folder, ignore_errors=True)
    _git(["-c", "advice.detachedHead=false", "clone", "--quiet", "--depth", "1", "--branch", release.tag,
          release.repository, str(folder)], SECONDS["download"])
    return _git(["-C", str(folder), "rev-parse", "HEAD"], SECONDS["list"]).strip()


def _unpack_archive(release: Release, folder: Path) -> str:
    """Unpack the archive of the release; return the commit that git wrote into it, as into every archive it makes."""
    archive, unpacked = folder.with_suffix(".zip"), folder.with_name("ComfyUI.unpacked")
    archive.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (folder, unpacked):
        shutil.rmtree(leftover, ignore_errors=True)
    address = f"{release.repository}/archive/{release.commit}.zip"
    with _open(address, SECONDS["download"]) as source, open(archive, "wb") as target:
        shutil.copyfileobj(source, target)
    with zipfile.ZipFile(archive) as file:
        commit = file.comment.decode("ascii", "replace")
        file.extractall(unpacked)
    (inner,) = unpacked.iterdir()  # the archive holds one folder, named after the commit
    inner.rename(folder)
    unpacked.rmdir()
    archive.unlink()
    return commit


def _open(address: str, seconds: int):
    request = urllib.request.Request(address, headers={"User-Agent": "git/2 (id-ea quickstart)"})
    return urllib.request.urlopen(request, timeout=seconds)


def _git(arguments: list[str], seconds: int) -> str:
    return subprocess.run([GIT, *arguments], check=True, timeout=seconds, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, encoding="utf-8", errors="replace").stdout


def _reason(error: Exception) -> str:
    """Return what git died of, or the error's own words."""
    if isinstance(error, subprocess.CalledProcessError) and (said := (error.stderr or "").strip()):
        lines = said.splitlines()
        return next((line for line in lines if line.startswith("fatal: ")), lines[-1]).strip().removesuffix(".")
    return str(error).removesuffix(".")
