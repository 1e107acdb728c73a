"""Writes the shipped assets from the checkpoints, finished or not (moving averages where there are any)."""
from __future__ import annotations

from .. import assets
from ..networks.face_pack import export as export_face_pack
from . import attributes, decoder, denoiser as denoiser_training, detector, recognizer, text
from .recognizer import train_judge


def train() -> None:
    """Export everything; a part that is not yet trained to the end is trained first, except the denoiser."""
    assets.save("autoencoder", decoder.train().state_dict())
    assets.save("judge", train_judge().state_dict())
    assets.save("attributes", attributes.train().state_dict())
    export_face_pack(detector.train(), recognizer.train(), assets.FACE_PACK)
    denoiser()


def denoiser() -> None:
    """Export the UNet and the text encoder as far as they are trained."""
    session = denoiser_training.session()
    session.averaged()
    assets.save("denoiser", session.modules["unet"].state_dict(), steps=str(session.step), seconds=str(int(session.seconds)))
    assets.save_text_encoder(text.train())
