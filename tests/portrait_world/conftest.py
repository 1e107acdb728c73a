"""Tests of shipped weights are skipped, with the reason said, where the weights are not there."""
import pytest


@pytest.fixture(scope="session")
def shipped():
    """The assets module, when every asset is there."""
    from portrait_world import assets

    for file in ("autoencoder", "denoiser", "text_encoder", "judge", "attributes"):
        if not (assets.FOLDER / f"{file}.safetensors").exists():
            pytest.skip(f"{file}.safetensors is not trained yet")
    return assets
