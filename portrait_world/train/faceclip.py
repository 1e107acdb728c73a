"""Trains the tiny FaceCLIP on the shipped model: first to say in the text encoder's own language who is in a photograph, then to be drawn.

Alignment: for a named person [face + 'a photo of a person on a beach'] must give the rows that the frozen text encoder gives for
'a photo of anna smith on a beach', and the rows must tell face, text and picture (the paper's alignment loss). Drawing: the frozen denoiser
must find the person in the noise, named or not, from another photograph of the same person. Text encoder, denoiser and recognizer stay as
they are; the judge takes no part.
"""
from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from .. import assets, tokenizer
from ..drawing.portrait import SIZE, landmarks
from ..faceclip import ASSET, ENCODER, PREFIX, SIZES, description, is_text_tower, text_tower
from ..networks import noise
from ..world.captions import caption, describe
from ..world.people import name
from .captioned import Captioned
from .dataset import SHOTS_UNNAMED, pictures
from .latents import latents
from .recognizer import LANDMARK_ERROR, align, augment
from .session import Schedule, Session

SCHEDULE = Schedule(steps=2200, rate=1.5e-3, warmup=60, average=0.99, cooldown=0.5, weight_decay=1e-3, seed=21, save_every=100)
FACE_STEPS, ALIGNMENT_STEPS = 400, 900  # of the schedule: the face tower alone, then alignment; the rest is drawing
FACE_BATCH, BATCH, BARE_BATCH = 96, 32, 6
CROPS_NAMED, CROPS_UNNAMED = 24, SHOTS_UNNAMED  # shots per person whose faces are shown; sketches and the like are left out


class Faces:
    """Aligned faces from photographs, and what the shipped recognizer says of them."""

    def __init__(self, captioned: Captioned):
        rows = [row for row, entry in enumerate(captioned.entries)
                if entry.number < (CROPS_NAMED if entry.split == "named" else CROPS_UNNAMED) and captioned.shots[row].style == "photo"]
        self.rows = np.array(rows)
        self.pixels = _crops(captioned, self.rows)
        self.vectors = _recognized(self.pixels)
        keys = [(captioned.entries[row].split, captioned.entries[row].index) for row in rows]
        self._of: dict[tuple[str, int], list[int]] = {}
        for place, key in enumerate(keys):
            self._of.setdefault(key, []).append(place)

    def another(self, captioned: Captioned, row: int, rng: np.random.Generator) -> int | None:
        """The place of a face of the person in picture ``row``, from another picture; None when there is none."""
        entry = captioned.entries[row]
        places = [place for place in self._of.get((entry.split, entry.index), ()) if self.rows[place] != row]
        return places[rng.integers(len(places))] if places else None

    def pictures(self, places: np.ndarray) -> Tensor:
        """(B, 3, 112, 112) in 0..1, a little blurred, noisy and bright or dark, as cameras are."""
        pixels = torch.from_numpy(self.pixels[places]).permute(0, 3, 1, 2).float() / 127.5 - 1
        return (augment(pixels) + 1) / 2


def session(schedule: Schedule = SCHEDULE) -> Session:
    """The (resumed) session of the joint encoder and the alignment's readouts."""
    from idea_engine.faceclip.alignment import Alignment
    from idea_engine.faceclip.config import FaceCLIPConfig
    from idea_engine.faceclip.encoder import JointEncoder

    torch.manual_seed(schedule.seed)
    encoder = JointEncoder(FaceCLIPConfig(**SIZES))
    encoder.load_state_dict(text_tower(), strict=False)
    with torch.no_grad():  # begin near the text: nothing has been learned yet that could be lost
        nn.init.eye_(encoder.text_embed_proj.weight)
        nn.init.zeros_(encoder.text_embed_proj.bias)
        last = encoder.fuser.encoder.text_layers[-1].norm2
        last.weight.copy_(encoder.ln_final.weight)
        last.bias.copy_(encoder.ln_final.bias)
        for layer in encoder.fuser.encoder.fusion_layers:
            layer.gamma_v.fill_(1.0)
            layer.gamma_l.fill_(1.0)
    for key, parameter in encoder.named_parameters():
        parameter.requires_grad_(not is_text_tower(key))
    heads = Alignment(SIZES["text_width"], {"face": 512, "text": SIZES["text_width"], "image": 256})
    learned = [p for module in (encoder, heads) for p in module.parameters() if p.requires_grad]
    return Session("faceclip", {"encoder": encoder, "heads": heads}, schedule, [{"params": learned}])


def train(schedule: Schedule = SCHEDULE) -> Session:
    """Train (or go on training), then write the asset."""
    made = session(schedule)
    if not made.finished:
        made.run(_Lessons(made))
    export(made)
    return made


def export(made: Session | None = None) -> None:
    """Write the asset from the checkpoint, finished or not."""
    made = made or session()
    made.averaged()
    kept = {f"{ENCODER}.{key}": value for key, value in made.modules["encoder"].state_dict().items() if not is_text_tower(key)}
    assets.save(ASSET, kept, **{"idea.faceclip": description(), "steps": str(made.step), "seconds": str(int(made.seconds))})


class _Lessons:
    """The loss of a step, by how far the training is."""

    def __init__(self, made: Session):
        from ..pipeline import unet
        from .denoiser import _split_gates

        self.session, self.rng = made, made.rng
        self.encoder, self.heads = made.modules["encoder"], made.modules["heads"]
        self.captioned = Captioned(made.rng)
        self.latents = latents()
        self.faces = Faces(self.captioned)
        self.unet = unet()
        from diffusers.models.attention_processor import AttnProcessor

        self.unet.set_attn_processor(AttnProcessor())
        _split_gates(self.unet)
        self.encoder.train()

    def __call__(self) -> tuple[Tensor, dict[str, float]]:
        if self.session.step < FACE_STEPS:
            return self._faces_alone()
        rows, places = self._draw()
        texts, named = self._texts(rows)
        faces = self.faces.pictures(places)
        with torch.autocast("cpu", torch.bfloat16):
            fused = self._fuse(texts, faces)
            bare_loss = self._bare()
        fused = fused.float()
        name_loss = ((fused[:len(named)] - self._named_rows(named)) ** 2).mean((1, 2)).mean()
        clean = self.latents[torch.from_numpy(rows)].float()
        told = self._told(fused, rows, places, texts, clean)
        drawing = self.session.step >= ALIGNMENT_STEPS
        value = (0.3 if drawing else 1.0) * (name_loss + bare_loss) + (0.01 if drawing else 0.03) * told
        figures = {"name": float(name_loss.detach()), "bare": float(bare_loss.detach()), "told": float(told.detach())}
        if drawing:
            noise_loss, figures["plain"] = self._noise_loss(fused, clean)
            value = value + 3 * noise_loss
        return value, figures

    def _faces_alone(self) -> tuple[Tensor, dict[str, float]]:
        places = self.rng.integers(len(self.faces.rows), size=FACE_BATCH)
        with torch.autocast("cpu", torch.bfloat16):
            classes, _ = self.encoder.face_encoder(self.faces.pictures(places))
        wanted = self.faces.vectors[torch.from_numpy(places)]
        near = 1 - nn.functional.cosine_similarity(classes.float(), wanted)
        return near.mean(), {"name": 0.0, "bare": 0.0, "told": float(near.detach().mean())}

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        """(B,) pictures, named people first, and (B,) faces of the same people from other pictures."""
        rows, places = [], []
        bounds = [(0, self.captioned.named_count)] * (BATCH * 2 // 5)
        bounds += [(self.captioned.named_count, len(self.captioned.entries))] * (BATCH - len(bounds))
        for low, high in bounds:
            place = None
            while place is None:
                row = int(self.rng.integers(low, high))
                place = self.faces.another(self.captioned, row, self.rng)
            rows.append(row)
            places.append(place)
        return np.array(rows), np.array(places)

    def _texts(self, rows: np.ndarray) -> tuple[list[str], list[str]]:
        """Prompts that say 'a person', and those of the named people that say the name."""
        texts, named = [], []
        for row in rows:
            entry, shot = self.captioned.entries[row], self.captioned.shots[row]
            who = name(entry.index) if entry.split == "named" else "a person"
            text = caption(who, shot, self.rng)
            if entry.split == "named":
                named.append(text)
            texts.append(text.replace(who, "a person"))
        return texts, named

    def _fuse(self, texts: list[str], faces: Tensor | None) -> Tensor:
        from idea_engine.faceclip.prompt import chunks

        made = chunks(texts, tokenizer.encode, self.encoder.config, faces is not None)
        seen = self.encoder.see(torch.zeros(len(texts), 3, 112, 112) if faces is None else faces)
        return self.encoder(made.ids[:, 0], seen, made.face_at)[0]

    @torch.no_grad()
    def _text_rows(self, texts: list[str]) -> Tensor:
        return self.encoder.read(tokenizer.tokenize(texts))[0]

    def _named_rows(self, named: list[str]) -> Tensor:
        """(B, 77, 128) what the fused rows of the named should be."""
        return self._text_rows(named)[:, named_places()]

    def _bare(self) -> Tensor:
        """Without a face, the rows are the text encoder's."""
        texts = [""]
        for row in self.captioned.draw(BARE_BATCH - 1):
            entry = self.captioned.entries[row]
            who = name(entry.index) if entry.split == "named" else describe(self.captioned.person(row), self.rng)
            texts.append(caption(who, self.captioned.shots[row], self.rng))
        self.encoder.face_encoder.train(False)  # six times the same black picture is no batch to take statistics from
        fused = self._fuse(texts, None).float()
        self.encoder.face_encoder.train()
        return ((fused - self._text_rows(texts)) ** 2).mean()

    def _told(self, fused: Tensor, rows: np.ndarray, places: np.ndarray, texts: list[str], clean: Tensor) -> Tensor:
        ids = tokenizer.tokenize(texts)
        with torch.no_grad():
            ends = self.encoder.read(ids)[1]
        owners = [(self.captioned.entries[row].split, self.captioned.entries[row].index) for row in rows]
        same_person = torch.tensor([[one == other for other in owners] for one in owners])
        same_text = torch.tensor([[one == other for other in texts] for one in texts])
        image = nn.functional.adaptive_avg_pool2d(clean, 8).flatten(1)
        losses = self.heads(
            fused, {"face": self.faces.vectors[torch.from_numpy(places)], "text": ends, "image": image},
            self.encoder.logit_scale, self.encoder.logit_bias, {"face": same_person, "text": same_text},
        )
        return sum(loss.mean() for loss in losses.values())

    def _noise_loss(self, fused: Tensor, clean: Tensor) -> tuple[Tensor, float]:
        timesteps = torch.randint(0, noise.STEPS, (len(clean),))
        added = torch.randn_like(clean)
        with torch.autocast("cpu", torch.bfloat16):
            predicted = self.unet(noise.add_noise(clean, added, timesteps), timesteps, fused).sample
        errors = ((predicted.float() - added) ** 2).mean((1, 2, 3))
        return (errors * noise.loss_weights(timesteps)).mean(), float(errors.detach().mean())


def named_places() -> list[int]:
    """Which row of the text each fused row should become: the prefix's six places take the last six padding rows, the rest moves up."""
    length, taken = tokenizer.LENGTH, len(tokenizer.encode(PREFIX))
    return [0, *range(length - taken, length), *range(1, length - taken)]


def _crops(captioned: Captioned, rows: np.ndarray) -> np.ndarray:
    """(N, 112, 112, 3) uint8: the pictures' faces, aligned with slightly wrong landmarks, as a detector's are."""
    from tqdm import tqdm

    stores = pictures("named"), pictures("unnamed")
    rng = np.random.default_rng(6)
    crops = np.empty((len(rows), 112, 112, 3), np.uint8)
    for place, row in enumerate(tqdm(rows, desc="faces", mininterval=5)):
        store, at = (stores[0], row) if row < captioned.named_count else (stores[1], row - captioned.named_count)
        exact = landmarks(captioned.person(row), captioned.shots[row]) * SIZE
        crops[place] = align(store[at], exact + rng.normal(size=(5, 2)) * LANDMARK_ERROR)
    return crops


def _recognized(crops: np.ndarray) -> Tensor:
    """(N, 512) unit-length embeddings by the shipped recognizer."""
    import onnxruntime
    from tqdm import tqdm

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    network = onnxruntime.InferenceSession(str(assets.FACE_PACK / "rec_portrait.onnx"), options, providers=["CPUExecutionProvider"])
    entry, parts = network.get_inputs()[0].name, []
    for start in tqdm(range(0, len(crops), 64), desc="recognize", mininterval=5):
        pixels = (crops[start:start + 64].astype(np.float32) - 127.5) / 127.5
        parts.append(torch.from_numpy(network.run(None, {entry: pixels.transpose(0, 3, 1, 2)})[0]))
    return nn.functional.normalize(torch.cat(parts), dim=1)
