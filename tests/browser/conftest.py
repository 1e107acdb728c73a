"""One host and one browser for all tests of this folder; without a browser they say that they were not run."""
import os
from pathlib import Path

import pytest

from launcher.session import any_host, session
from tools.chromium import Page, find_browser, show_canvas, skip_the_tour

ROOT = Path(__file__).resolve().parent.parent.parent
NO_BROWSER = "not run: no Chromium or Chrome here; install one (apt install chromium), or name it in the environment variable CHROMIUM"


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    if find_browser() is None:
        for item in items:
            if here in Path(item.path).parents:
                item.add_marker(pytest.mark.skip(reason=NO_BROWSER))


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory) -> Path:
    """Where pictures of the page go: $IDEA_SCREENSHOTS, to be kept as build artefacts, else a temporary folder."""
    folder = Path(os.environ.get("IDEA_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The newest ComfyUI that is found, else the pip host; $IDEA_BROWSER_HOST names another one by its id."""
    host = any_host(os.environ.get("IDEA_BROWSER_HOST"))
    with session(host, tmp_path_factory.mktemp("browser-host"), prepare=skip_the_tour) as running:
        yield running.process


@pytest.fixture
def page(server, tmp_path):
    """A fresh tab that shows the host's canvas."""
    with Page(find_browser(), tmp_path / "profile") as page:
        show_canvas(page, server.address)
        yield page
