"""``idea-engine embed``: which faces are in photographs, and whether they are one person."""
from __future__ import annotations

import argparse
from pathlib import Path

NAME = "embed"
SUMMARY = "List the faces in photographs; say how alike they are; draw a numbered preview."
EPILOG = """\
example:
  idea-engine embed photos/*.jpg --face-pack models/buffalo_l --preview preview

The cosine of two photographs of one person is usually above 0.4 with ArcFace packs, of two people below 0.2.
A face embedding is biometric data. It is written to a file only with -o.
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    from .faces import face_arguments

    parser.add_argument("photos", nargs="+", metavar="PHOTO", help="photographs, or folders of them")
    parser.add_argument("--preview", metavar="DIR", help="write the photographs with numbered boxes here")
    parser.add_argument("-o", "--output", metavar="FILE", help="store the averaged embedding as safetensors; biometric data, so only if you want it")
    face_arguments(parser)


def run(options: argparse.Namespace) -> int:
    from idea_engine.faces.embed import embed_faces, search_photos
    from idea_engine.faces.preview import draw_preview
    from idea_engine.files.foreign_text import shown
    from idea_engine.files.pictures import read_photo

    from .faces import describe_faces, open_pack
    from .pictures import photo_files, write_picture

    files = photo_files(options.photos)
    photos = [read_photo(file) for file in files]
    encoder = open_pack(options.face_pack, options)
    found = search_photos(encoder, photos, options.choose, options.index)
    print("\n".join(describe_faces([file.name for file in files], photos, found)))
    if options.preview:
        for file, picture in zip(files, draw_preview(photos, found)):
            print(f"preview: {write_picture(picture, Path(options.preview) / f'{file.stem}.png')}")
    face = embed_faces(encoder, photos, options.choose, options.index, "skip", found)
    print(f"recognizer: {face.recognizer}\nlicence: {face.licence}")
    if len(face) > 1:
        cosines = face.vectors @ face.vectors.T
        pairs = [(float(cosines[i, j]), i, j) for i in range(len(face)) for j in range(i)]
        low, i, j = min(pairs)
        names = [shown(files[face.image_index[k]].name) for k in (i, j)]
        print(f"alike: cosine {sum(pair[0] for pair in pairs) / len(pairs):.2f} on average, least {low:.2f} between {names[0]} and {names[1]}")
    if options.output:
        print(f"stored (biometric data): {_store(face, Path(options.output))}")
    return 0


def _store(face, path: Path) -> Path:
    """The averaged face under the name that identity files use, with where it came from."""
    from safetensors.torch import save

    from idea_engine.files.atomic_write import atomic_write

    path = path if path.suffix == ".safetensors" else path.with_name(path.name + ".safetensors")
    atomic_write(path, save({"face.embedding": face.mean().contiguous()}, metadata={"idea.recognizer": face.recognizer, "idea.licence": face.licence}))
    return path
