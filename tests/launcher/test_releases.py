"""A downloaded ComfyUI is a release, its commit is known, and what is not that commit is not kept; from a real git repository, with git and without."""
import http.server
import json
import shutil
import subprocess
import sys
import threading

import pytest

from launcher import releases
from launcher.command_line import choose_host
from launcher.errors import LauncherError
from launcher.hosts import find_checkouts, read_checkout
from launcher.releases import commit_written_down, fetch_release

pytestmark = pytest.mark.skipif(not shutil.which("git"), reason="the repository that stands for ComfyUI's is made by git")
VERSIONS = ("0.9.0", "0.33.0", "0.33.1-rc1", "0.4.0")  # in the order in which they were made


def git(folder, *arguments) -> str:
    own = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"]
    return subprocess.run(["git", *own, "-C", str(folder), *arguments], check=True, capture_output=True).stdout.decode("latin-1")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """A bare repository with a release for each version, one of them a tag with a message, and something newer on its main branch."""
    work = tmp_path_factory.mktemp("work")
    git(work, "init", "--quiet", "--initial-branch", "master")
    (work / "comfy").mkdir()
    for name in ("main.py", "nodes.py", "requirements.txt", "comfy/cli_args.py"):
        (work / name).write_text("", encoding="utf-8")
    for version in (*VERSIONS, "of the main branch"):
        (work / "comfyui_version.py").write_text(f'__version__ = "{version}"\n', encoding="utf-8")
        git(work, "add", "--all")
        git(work, "commit", "--quiet", "--message", version)
        if version in VERSIONS:
            git(work, "tag", *(["--annotate", "--message", "a release"] if version == "0.33.0" else []), f"v{version}")
    git(work, "tag", "latest")
    bare = tmp_path_factory.mktemp("upstream") / "ComfyUI"
    subprocess.run(["git", "clone", "--quiet", "--bare", str(work), str(bare)], check=True)
    return bare


@pytest.fixture(scope="module")
def site(upstream):
    """The same over HTTP, as far as a machine without git needs it: the list of tags, and the archive of a commit."""
    class Site(http.server.BaseHTTPRequestHandler):
        tampered = False

        def do_GET(self):
            if self.path == "/ComfyUI/info/refs?service=git-upload-pack":
                body = subprocess.run(["git", "upload-pack", "--stateless-rpc", "--advertise-refs", str(upstream)], capture_output=True).stdout
            else:
                commit = self.path.removeprefix("/ComfyUI/archive/").removesuffix(".zip")
                given = "master" if Site.tampered else commit
                body = subprocess.run(["git", "-C", str(upstream), "archive", "--format=zip", f"--prefix=ComfyUI-{commit}/", given], capture_output=True).stdout
            self.send_response(200 if body else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.site, server.address = Site, f"http://127.0.0.1:{server.server_port}/ComfyUI"
    yield server
    server.shutdown()


@pytest.fixture(params=("git", "no git"))
def repository(request, upstream, site, monkeypatch, tmp_path):
    """Where releases come from, on a machine with git and on one without."""
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    if request.param == "git":
        return upstream.as_uri()
    monkeypatch.setattr(releases.shutil, "which", lambda name: None)
    return site.address


def test_the_newest_release_is_downloaded_and_its_commit_written_down(repository, upstream, tmp_path):
    folder = fetch_release(repository=repository, say=lambda text: None)
    commit = git(upstream, "rev-parse", "v0.33.0^{commit}").strip()
    assert folder == tmp_path / "cache" / "ComfyUI-0.33.0" and commit_written_down(folder) == commit
    written = json.loads((tmp_path / "cache" / "ComfyUI-0.33.0.release.json").read_text(encoding="utf-8"))
    assert written == {"version": "0.33.0", "tag": "v0.33.0", "commit": commit, "repository": repository}
    host = read_checkout(folder, "test")
    assert (host.version, host.commit) == ("0.33.0", commit)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["ComfyUI-0.33.0", "ComfyUI-0.33.0.release.json", "ComfyUI.lock"]


@pytest.mark.parametrize("version", ("0.4.0", "v0.4.0"))
def test_another_release_by_its_version(repository, upstream, version):
    folder = fetch_release(version, repository, say=lambda text: None)
    assert read_checkout(folder, "test").version == "0.4.0" and commit_written_down(folder) == git(upstream, "rev-parse", "v0.4.0").strip()


def test_a_second_time_nothing_is_downloaded(repository):
    folder = fetch_release("0.4.0", repository, say=lambda text: None)
    (folder / "mine").write_text("", encoding="utf-8")
    said = []
    assert fetch_release("0.4.0", repository, say=said.append) == folder and (folder / "mine").is_file() and said == []


def test_a_release_that_is_not_there_names_those_that_are(repository):
    with pytest.raises(LauncherError, match=r"no release 0.5.0 .*the newest are 0.33.0, 0.9.0, 0.4.0\. .*--host-version"):
        fetch_release("0.5.0", repository, say=lambda text: None)


def test_a_tag_that_was_moved_after_it_was_downloaded_is_downloaded_again(repository, tmp_path):
    folder = fetch_release("0.4.0", repository, say=lambda text: None)
    record = tmp_path / "cache" / "ComfyUI-0.4.0.release.json"
    record.write_text(record.read_text(encoding="utf-8").replace(commit_written_down(folder), "0" * 40), encoding="utf-8")
    (folder / "mine").write_text("", encoding="utf-8")
    assert not (fetch_release("0.4.0", repository, say=lambda text: None) / "mine").exists()


def test_an_archive_of_another_commit_is_not_kept(upstream, site, monkeypatch, tmp_path):
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(releases.shutil, "which", lambda name: None)
    monkeypatch.setattr(site.site, "tampered", True)
    with pytest.raises(LauncherError, match="gave as v0.33.0 is commit .* but the tag stands for"):
        fetch_release(repository=site.address, say=lambda text: None)
    assert not list((tmp_path / "cache").glob("ComfyUI-*"))


@pytest.mark.parametrize("with_git", (True, False))
def test_a_download_that_fails_says_why(with_git, monkeypatch, tmp_path):
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    if not with_git:
        monkeypatch.setattr(releases.shutil, "which", lambda name: None)
    nowhere = (tmp_path / "nowhere").as_uri()
    with pytest.raises(LauncherError, match="could not be listed from .*nowhere: .*(not exist|No such file|not appear).*--host FOLDER") as caught:
        releases.releases(nowhere)
    assert ("git: fatal: " in str(caught.value)) == with_git


@pytest.mark.skipif(sys.platform == "win32", reason="the git that does nothing is a shell script")
def test_a_git_that_does_nothing_is_as_good_as_none(site, monkeypatch, tmp_path):
    (tmp_path / "git").write_text("#!/bin/sh\necho 'xcrun: error: invalid active developer path' >&2\nexit 1\n", encoding="utf-8")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(releases, "GIT", str(tmp_path / "git"))
    folder = fetch_release("0.9.0", site.address, say=lambda text: None)
    assert read_checkout(folder, "test").version == "0.9.0" and not (folder / ".git").exists()


def test_quickstart_takes_the_newest_release_where_there_is_no_comfyui_and_the_one_that_is_named(upstream, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("IDEA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("launcher.hosts.Path.home", lambda: tmp_path / "home")
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    monkeypatch.setattr("launcher.hosts.CHECKOUT", tmp_path / "pack")
    monkeypatch.setattr("launcher.hosts.github_is_reachable", lambda: True)
    monkeypatch.setattr(releases.fetch_release, "__defaults__", (None, upstream.as_uri(), print))
    assert choose_host(None)[0].version == "0.33.0"
    assert choose_host(None, "0.9.0")[0].version == "0.9.0"
    assert [host.version for host in find_checkouts().found] == ["0.33.0", "0.9.0"]
    monkeypatch.setattr(releases.fetch_release, "__defaults__", (None, "nowhere", print))
    assert choose_host(None)[0].version == "0.33.0" and choose_host(None, "v0.9.0")[0].version == "0.9.0"  # what is there is not asked for
    with pytest.raises(LauncherError, match="give one of them"):
        choose_host(tmp_path, "0.9.0")
    assert "Downloading ComfyUI 0.9.0 (commit " in capsys.readouterr().out
