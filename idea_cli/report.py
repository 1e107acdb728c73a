"""The evaluation as one HTML file with the pictures in it."""
from __future__ import annotations

import base64
import io
from html import escape
from pathlib import Path
from typing import Mapping, Sequence

import torch
from torch import Tensor

from idea_engine.judging.likeness import COPYING_WARNING

_SIDE = 192  # of a thumbnail, in pixels
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2430; background: #fff }
h1 { font-size: 1.5rem } h2 { font-size: 1.2rem; margin-top: 2.5rem } h3 { font-size: 1rem; font-weight: 600; margin: 1.2rem 0 .4rem }
table { border-collapse: collapse } th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #dde2ea } th:first-child, td:first-child { text-align: left }
.strip { display: flex; flex-wrap: wrap; gap: .6rem } figure { margin: 0; width: 192px } figure img { width: 192px; border-radius: 4px; display: block }
figcaption { font-size: 12px; color: #51607a } .warn { color: #a33b00 } .notes { background: #fff6e5; padding: .6rem 1rem; border-radius: 4px } .legend { color: #51607a; font-size: 13px }
"""
COLUMNS = {
    "calibrated": "calibrated likeness", "likeness": "likeness", "raw_likeness": "likeness, faces only", "detection_rate": "faces found", "ceiling": "own photographs",
    "floor": "strangers", "copy_paste": "copy-paste", "copies": "copies", "prompt_score": "prompt (CLIP)", "pictures": "pictures",
}
_LEGEND = (
    "Calibrated likeness: 1 is as alike as the person's own other photographs are to each other, 0 a stranger; a picture without a face counts 0. "
    "Likeness: mean cosine to the held-out photographs, a missing face counts 0; 'faces only' leaves such pictures out, as papers do. "
    "Copy-paste: likeness to the training photograph beyond likeness to the person. "
    f"Copies: pictures that have come {COPYING_WARNING:.0%} or more of the way from the person's other photographs to one that was trained on. Prompt: CLIP's cosine with the person's word removed."
)


def html_report(title: str, facts: Mapping[str, object], notes: Sequence[str], summary: Sequence[Mapping], references: Mapping[str, Sequence[Tensor]],
                rows: Sequence[Mapping], folder: Path) -> str:
    """The page.

    Args:
        facts: what was evaluated, label → text.
        notes: sentences a reader must know.
        summary: one row of figures per identity; see COLUMNS.
        references: identity → held-out photographs (H, W, 3).
        rows: one per picture; ``picture`` is relative to ``folder``.
    """
    from idea_engine.files.pictures import read_photo

    shown = [name for name in COLUMNS if any(row.get(name) is not None for row in summary)]
    parts = [f"<h1>{escape(title)}</h1>", "<p>" + "<br>".join(f"{escape(name)}: {escape(str(value))}" for name, value in facts.items()) + "</p>"]
    if notes:
        parts.append("<div class=notes>" + "<br>".join(map(escape, notes)) + "</div>")
    head = "".join(f"<th>{escape(COLUMNS[name])}</th>" for name in shown)
    body = "".join(f"<tr><td>{escape(row['identity'])}</td>" + "".join(f"<td>{_figure(row.get(name))}</td>" for name in shown) + "</tr>" for row in summary)
    parts.append(f"<h2>Scores</h2><table><tr><th>identity</th>{head}</tr>{body}</table><p class=legend>{escape(_LEGEND)}</p>")
    for name in references:
        own = [row for row in rows if row["identity"] == name]
        parts.append(f"<h2>{escape(name)}</h2><h3>photographs compared with</h3><div class=strip>")
        parts += [f"<figure>{_image(photo, name)}</figure>" for photo in references[name]]
        parts.append("</div>")
        for text in dict.fromkeys(row["prompt"] for row in own):
            parts.append(f"<h3>{escape(text)}</h3><div class=strip>")
            for row in own:
                if row["prompt"] == text:
                    picture = _image(read_photo(folder / row["picture"]), text)
                    parts.append(f"<figure><a href='{escape(row['picture'], quote=True)}'>{picture}</a><figcaption>{_caption(row)}</figcaption></figure>")
            parts.append("</div>")
    return page(title, "".join(parts))


def page(title: str, body: str) -> str:
    """A whole page around a body of HTML."""
    return f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title><style>{_STYLE}</style><body>{body}</body></html>\n"


def _caption(row: Mapping) -> str:
    if not row["face_found"]:
        return f"<span class=warn>no face found</span>, seed {row['seed']}"
    said = [f"likeness {row['likeness']:.2f}"]
    said += [f"calibrated {row['calibrated']:.2f}"] if row["calibrated"] is not None else []
    said += [f"prompt {row['prompt_score']:.2f}"] if row["prompt_score"] is not None else []
    if row["copying"] is not None and row["copying"] >= COPYING_WARNING:
        said.append("<span class=warn>repeats a photograph</span>")
    return ", ".join(said) + f", seed {row['seed']}"


def _figure(value) -> str:
    return "" if value is None else str(value) if isinstance(value, int) else f"{value:.3f}"


def _image(photo: Tensor, text: str) -> str:
    from PIL import Image

    picture = Image.fromarray((photo.clamp(0, 1) * 255).round().to(torch.uint8).numpy())
    picture.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=88)
    return f"<img alt='{escape(text, quote=True)}' src='data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
