"""The identity file: round trips, and every way in which a file can be wrong."""
import json
import os
import pickle
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from idea_engine.backends.family import ModelFamily
from idea_engine.errors import IdentityFileError
from idea_engine.identity.file import inspect_identity, load_identity, save_identity
from idea_engine.identity.foreign_files import read_identity
from idea_engine.identity.identity import AdapterWeights, Identity, IdentityMetadata, StageTokens
from idea_engine.identity.operations import content_hash, faded, named_tensors, rounded, untrained

SDXL = ModelFamily("sdxl", {"clip_l": 16, "clip_g": 24})


@pytest.fixture
def identity():
    """An identity with every kind of part."""
    g = torch.Generator().manual_seed(0)
    d = SDXL.context_width
    rand = lambda *shape: torch.randn(*shape, generator=g)  # noqa: E731
    attention = {"in_proj_weight": rand(3 * d, d), "in_proj_bias": rand(3 * d), "out_proj.weight": rand(d, d), "out_proj.bias": rand(d)}
    return rounded(
        Identity(
            SDXL,
            tokens={"clip_l": rand(2, 16), "clip_g": rand(2, 24)},
            anchor={"clip_l": rand(2, 16), "clip_g": rand(2, 24)},
            adapter=AdapterWeights(rand(2, d), attention, gate=0.123456789, scope="tokens"),
            ending=rand(d),
            key_offsets={0: rand(2, d), 11: rand(2, d)},
            value_offsets={0: rand(2, d), 11: rand(2, d)},
            key_weights={3: rand(8, d)},
            value_weights={3: rand(8, d)},
            face=rand(512),
            stages=tuple(StageTokens(*({"clip_l": rand(2, 16), "clip_g": rand(2, 24)} for _ in range(2))) for _ in range(3)),
            metadata=IdentityMetadata("<anna>", "fast", "sdxl", "abc", "buffalo_l", "non-commercial", {"steps": 40}, "agreed 2026", "data:image/jpeg;base64,"),
        )
    )


def same(a, b):
    left, right = named_tensors(a), named_tensors(b)
    assert left.keys() == right.keys()
    for name in left:
        assert left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]), name
    assert a.metadata == b.metadata and a.family == b.family
    assert (a.adapter is None) == (b.adapter is None) and (a.adapter is None or (a.adapter.gate, a.adapter.scope) == (b.adapter.gate, b.adapter.scope))


def test_a_saved_identity_comes_back_bit_for_bit(identity, tmp_path):
    path = save_identity(identity, tmp_path / "anna", store_face=True)
    assert path.name == "anna.safetensors"
    same(load_identity(path), identity)
    assert content_hash(load_identity(path)) == content_hash(identity)


def test_only_a_file_with_an_ending_asks_for_a_reader_that_knows_it(identity, tmp_path):
    from safetensors import safe_open

    versions = []
    for number, made in enumerate((identity, replace(identity, ending=None))):
        with safe_open(str(save_identity(made, tmp_path / str(number))), framework="pt") as file:
            versions.append((file.metadata()["idea.format_version"], "ending" in file.keys()))
        same(load_identity(tmp_path / f"{number}.safetensors"), replace(made, face=None))
    assert versions == [("2", True), ("1", False)]


def test_the_face_is_not_stored_unless_asked(identity, tmp_path):
    assert "face.embedding" not in load_file(save_identity(identity, tmp_path / "anna"))


def test_the_token_part_stands_where_stock_embedding_readers_look(identity, tmp_path):
    tensors = load_file(save_identity(identity, tmp_path / "anna"))
    assert torch.equal(tensors["clip_l"], identity.tokens["clip_l"]) and torch.equal(tensors["clip_g"], identity.tokens["clip_g"])


def test_inspection_tells_people_what_is_inside(identity, tmp_path):
    told = inspect_identity(save_identity(identity, tmp_path / "anna"))
    assert told["trigger"] == "<anna>" and told["licence"] == "non-commercial" and "SDXL" in told["family"]
    json.dumps(told)


@pytest.mark.parametrize("keep", [0, 7, 8, 200, 0.5, -1])
def test_a_truncated_file_is_refused_with_a_sentence(identity, tmp_path, keep):
    path = save_identity(identity, tmp_path / "anna")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    for read in (load_identity, read_identity):
        with pytest.raises(IdentityFileError, match="anna.safetensors"):
            read(path)


def test_a_lying_header_is_refused_before_memory_is_taken(tmp_path):
    path = tmp_path / "anna.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 62) + b"{}")
    with pytest.raises(IdentityFileError, match="header"):
        load_identity(path)


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda t: t.pop("adapter.features"), "adapter.features"),
        (lambda t: t.update({"adapter.features": torch.zeros(3, 40)}), "adapter.features"),
        (lambda t: t.update({"kv.0.key": torch.zeros(2, 41)}), "kv.0.key"),
        (lambda t: t.update({"clip_l": t["clip_l"] * float("nan")}), "not finite"),
        (lambda t: t.pop("stages.1.v.clip_g"), "lacks the tensor stages.1.v.clip_g"),
        (lambda t: [t.pop(f"stages.1.{kind}.{key}") for kind in "kv" for key in ("clip_l", "clip_g")], "stages 0, 2, but expected all"),
        (lambda t: t.update({"stages.0.k.clip_l": torch.zeros(3, 16)}), "stages.0.k.clip_l"),
        (lambda t: t.update({"stages.999999.k.clip_l": torch.zeros(2, 16)}), "at most 100"),
        (lambda t: t.update({"stages.2.v.clip_g": t["stages.2.v.clip_g"] / 0}), "not finite"),
        (lambda t: t.update({"clip_l": torch.zeros(2, 16, dtype=torch.int32)}), "int32"),
        (lambda t: t.update({"clip_l": torch.zeros(2, 16, dtype=torch.float64)}), "float64"),
        (lambda t: t.update({"clip_l": torch.zeros(2, 16, dtype=torch.float8_e4m3fn)}), "float8"),
        (lambda t: t.update({"clip_l": torch.zeros(5, 16)}), "same number"),
        (lambda t: t.update({"clip_h": torch.zeros(2, 16)}), "no identity"),
        (lambda t: [t.pop(k) for k in ("clip_l", "clip_g")], "no identity"),
    ],
)
def test_a_damaged_file_names_what_is_wrong(identity, tmp_path, change, says):
    from safetensors import safe_open

    path = save_identity(identity, tmp_path / "anna")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata)
    with pytest.raises(IdentityFileError, match=says):
        load_identity(path)


@pytest.mark.parametrize(
    "metadata, says",
    [({}, "no identity"), ({"idea.format_version": "99"}, "Update the pack"), ({"idea.format_version": "1", "idea.trigger": "a b"}, "damaged"),
     ({"idea.format_version": "1", "idea.trigger": "<a>", "idea.config": "[1]"}, "damaged")],
)
def test_foreign_or_damaged_metadata_is_refused(tmp_path, metadata, says):
    path = tmp_path / "x.safetensors"
    save_file({"clip_l": torch.zeros(2, 16)}, path, metadata)
    with pytest.raises(IdentityFileError, match=says):
        load_identity(path)


@pytest.mark.parametrize("gate", ["NaN", "Infinity", "1" + "0" * 400, "[" * 100000 + "]" * 100000, '"wide"'])
def test_a_gate_that_is_no_number_is_refused(identity, tmp_path, gate):
    from safetensors import safe_open

    path = save_identity(identity, tmp_path / "anna")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    config = '{"adapter": {"gate": %s, "scope": "tokens"}}' % gate
    save_file(load_file(path), path, {**metadata, "idea.config": config})
    with pytest.raises(IdentityFileError, match="damaged"):
        load_identity(path)


def test_what_was_loaded_does_not_hold_on_to_the_file(identity, tmp_path):
    """Windows replaces and deletes no file that is mapped into memory; and nobody may change a loaded person from outside."""
    path = save_identity(identity, tmp_path / "anna")
    loaded, size = load_identity(path), path.stat().st_size
    with path.open("r+b") as file:
        file.write(bytes(size))
    assert content_hash(loaded) == content_hash(identity)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(identity, tmp_path, monkeypatch):
    path = save_identity(identity, tmp_path / "anna")
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityFileError, match="No space left.*Free some space"):
        save_identity(untrained_like(identity), path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def untrained_like(identity):
    return Identity(identity.family, identity.tokens, identity.metadata)


def test_fading_interpolates_to_the_anchor_and_scales_the_rest(identity):
    half = faded(identity, 0.5)
    torch.testing.assert_close(half.tokens["clip_l"], (identity.tokens["clip_l"] + identity.anchor["clip_l"]) / 2)
    assert half.adapter.gate == identity.adapter.gate / 2
    torch.testing.assert_close(half.ending, identity.ending / 2)
    torch.testing.assert_close(half.key_offsets[11], identity.key_offsets[11].float() / 2)
    for stage, original in zip(half.stages, identity.stages):
        torch.testing.assert_close(stage.value["clip_g"], (original.value["clip_g"] + identity.anchor["clip_g"]) / 2)
    assert faded(identity, 1.0) is identity


def test_names_that_are_no_stages_are_passed_over(identity, tmp_path):
    """A later version may store more beside them."""
    from safetensors import safe_open

    path = save_identity(identity, tmp_path / "anna")
    with safe_open(str(path), "pt") as file:
        metadata = file.metadata()
    strange = {f"stages.{number}.k.clip_l": torch.zeros(1) for number in ("x", "²", "9" * 5000, "-1")}
    save_file({**load_file(path), **strange, "stages.0": torch.zeros(1)}, path, metadata)
    assert len(load_identity(path).stages) == 3


def test_the_content_hash_ignores_the_name_and_sees_every_tensor(identity):
    assert content_hash(identity.with_trigger("<ben>")) == content_hash(identity)
    for name in named_tensors(identity):
        if name == "face.embedding":
            continue
        from idea_engine.identity.operations import map_tensors

        changed = map_tensors(identity, lambda n, t, name=name: t + 1 if n == name else t)
        assert content_hash(changed) != content_hash(identity), name


class Evil:
    def __reduce__(self):
        return (os.system, ("touch /tmp/idea-evil-was-here",))


@pytest.mark.parametrize("suffix", [".bin", ".pt"])
def test_a_pickle_that_tries_to_run_code_is_refused(tmp_path, suffix):
    path, marker = tmp_path / f"evil{suffix}", "/tmp/idea-evil-was-here"
    for write in (lambda: path.write_bytes(pickle.dumps(Evil())), lambda: torch.save({"a": Evil()}, path)):
        write()
        with pytest.raises(IdentityFileError, match="running code"):
            read_identity(path)
        assert not os.path.exists(marker)


def test_a_crossinit_file_becomes_an_identity_in_token_order(tmp_path):
    rows = torch.randn(12, 1024)
    names = {f"28017_v{i}": rows[i] for i in reversed(range(12))}  # v10 after v9, not after v1
    torch.save(names, tmp_path / "28017_learned_embeds.bin")
    identity = read_identity(tmp_path / "28017_learned_embeds.bin")
    assert identity.family == ModelFamily("sd2", {"clip_h": 1024}) and identity.trigger == "<28017>"
    assert torch.equal(identity.tokens["clip_h"], rows)
    assert identity.metadata.method == "imported" and identity.adapter is None


def test_other_tools_embeddings_are_read(tmp_path):
    rows = torch.randn(3, 768)
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": rows}, "name": "x"}, tmp_path / "old-style.pt")
    torch.save({"<cat>": rows[0]}, tmp_path / "learned_embeds.bin")
    save_file({"emb_params": rows}, tmp_path / "kohya.safetensors")
    save_file({"clip_l": rows, "clip_g": torch.randn(3, 1280)}, tmp_path / "xl.safetensors")
    assert torch.equal(read_identity(tmp_path / "old-style.pt").tokens["clip_l"], rows)
    assert read_identity(tmp_path / "old-style.pt").trigger == "<old-style>"
    assert read_identity(tmp_path / "learned_embeds.bin").trigger == "<cat>"
    assert torch.equal(read_identity(tmp_path / "kohya.safetensors").tokens["clip_l"], rows)
    assert read_identity(tmp_path / "xl.safetensors").family.name == "sdxl"


@pytest.mark.parametrize("content", [{"a": torch.zeros(2, 777)}, {"a": torch.zeros(2, 768), "b": torch.zeros(2, 768)}, {"a": "text"}, {}, {"a": torch.zeros(99, 768)}, {"a": torch.full((2, 768), float("inf"))}])
def test_tensors_of_other_shapes_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.bin")
    with pytest.raises(IdentityFileError, match="x.bin"):
        read_identity(tmp_path / "x.bin")


def test_the_untrained_identity_is_its_anchor(backend, enhance):
    enhanced = enhance(backend)
    identity = untrained(enhanced)
    assert torch.equal(identity.tokens["clip_l"], enhanced.anchor.rows["clip_l"])
    assert identity.adapter is None and not identity.key_offsets
