"""The archive that the registry would ship, installed into an empty ComfyUI, does what an artist does with it."""
import shutil
import zipfile
from pathlib import Path

import pytest

from launcher.base_directory import BaseDirectory
from launcher.client import Client
from launcher.example_workflow import example, on_demo_model
from launcher.server import PACK_NAME, HostProcess
from launcher.workflow import load_workflow
from tools.archive import build

pytestmark = pytest.mark.one_host

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists() or not shutil.which("git"), reason="this checkout is no git repository")
def test_the_shipped_archive_uses_a_saved_identity_in_an_empty_comfyui(host, tmp_path):
    from idea_engine.backends.family import ModelFamily
    from idea_engine.identity.file import save_identity
    from idea_engine.identity.identity import Identity, IdentityMetadata
    from portrait_world.pipeline import load_pipeline

    base = BaseDirectory.make(tmp_path / "base")
    with zipfile.ZipFile(build(tmp_path / "archive.zip")) as archive:
        archive.extractall(base.root / "custom_nodes" / PACK_NAME)
    vectors = load_pipeline().text_encoder.get_input_embeddings().weight.detach()
    identity = Identity(ModelFamily("sd1", {"clip_l": 128}), {"clip_l": vectors[320:322].float().clone()}, IdentityMetadata("<anna>", "imported", "sd1"))
    saved = save_identity(identity, base.root / "models" / "idea" / "anna")
    process = HostProcess(host.process.host, base)
    try:
        process.start()
        client = Client(process.address)
        assert {name for name in client.object_info() if name.startswith("IDEA_")} == {name for name in host.client.object_info() if name.startswith("IDEA_")}
        prompt = on_demo_model(load_workflow(example(2), client.object_info()), identity=saved.name)
        execution = client.run(prompt, timeout=300)
        (picture,) = execution.pictures()
        assert client.picture(picture).startswith(b"\x89PNG")
        failed = [line for line in process.log_text().splitlines() if "IMPORT FAILED" in line]
        assert not [line for line in failed if PACK_NAME in line]
    finally:
        process.stop()
