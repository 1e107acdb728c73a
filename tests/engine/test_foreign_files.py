"""Embeddings of other tools, and files that were made to do harm: read, or refused with a sentence before they cost anything."""
import io
import logging
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import save_file

from idea_engine.backends.family import ModelFamily
from idea_engine.errors import IdentityFileError
from idea_engine.files.pickle_file import read_pickle
from idea_engine.identity.file import load_identity, save_identity
from idea_engine.identity.foreign_files import read_identity
from idea_engine.identity.identity import AdapterWeights, Identity, IdentityMetadata
from peak_memory import peak_memory

unix = pytest.mark.skipif(sys.platform == "win32", reason="measured with a Unix system call")
READ = "from pathlib import Path; from idea_engine.identity.foreign_files import read_identity; import safetensors"
ROWS = torch.randn(3, 768, generator=torch.Generator().manual_seed(1))


def refused(path, says="."):
    """The sentence with which a file is refused; a sentence, not an essay."""
    with pytest.raises(IdentityFileError, match=says) as error:
        read_identity(path)
    assert len(str(error.value)) < 600, str(error.value)
    return str(error.value)


def old_parameter_dict(rows, new=False):
    """As PyTorch pickles ``torch.nn.ParameterDict({'*': rows})``; ``new``: since 1.12."""
    made = torch.nn.ParameterDict({"*": torch.nn.Parameter(rows)})
    if not new:
        made.__dict__.pop("_keys", None)
    return made


class TestWhatOtherToolsWrite:
    """The file's name is the person's, unless the file itself names one."""

    @pytest.mark.parametrize("write", [
        lambda path: save_file({"emb_params": ROWS}, path),
        lambda path: save_file({"clip_l": ROWS, "clip_g": torch.ones(3, 1280)}, path),
        lambda path: torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": ROWS}, "name": "x", "step": 500, "sd_checkpoint": None}, path),
        lambda path: torch.save({"emb_params": ROWS}, path),
    ], ids=["kohya", "sdxl", "a1111", "pickled"])
    def test_the_trigger_is_the_files_name(self, tmp_path, write):
        write(tmp_path / "my-anna.pt")
        read = read_identity(tmp_path / "my-anna.pt")
        assert read.trigger == "<my-anna>" and torch.equal(read.tokens["clip_l"], ROWS)

    def test_an_embedding_that_names_itself_keeps_its_name(self, tmp_path):
        torch.save({"<cat>": ROWS}, tmp_path / "learned_embeds.bin")
        assert read_identity(tmp_path / "learned_embeds.bin").trigger == "<cat>"

    @pytest.mark.parametrize("ending", [".PT", ".BIN", ".Bin", ".safetensors", ""])
    def test_what_a_file_is_stands_in_it_and_not_in_its_name(self, tmp_path, ending):
        torch.save({"<cat>": ROWS}, tmp_path / f"a{ending}")
        assert torch.equal(read_identity(tmp_path / f"a{ending}").tokens["clip_l"], ROWS)
        save_file({"emb_params": ROWS}, tmp_path / f"b{ending}")
        assert torch.equal(read_identity(tmp_path / f"b{ending}").tokens["clip_l"], ROWS) if ending in (".safetensors", "") else True

    @pytest.mark.parametrize("shape", [(768,), (1, 768)])
    @pytest.mark.parametrize("safe", [True, False])
    def test_one_key_for_each_vector(self, tmp_path, shape, safe):
        """As diffusers keeps several vectors of one word."""
        rows = torch.randn(12, 768)
        content = {f"<anna>_{i}" if i else "<anna>": rows[i].reshape(shape).clone() for i in reversed(range(12))}
        save_file(content, tmp_path / "x") if safe else torch.save(content, tmp_path / "x")
        read = read_identity(tmp_path / "x")
        assert read.trigger == "<anna>" and torch.equal(read.tokens["clip_l"], rows)

    def test_vectors_that_do_not_belong_together_are_refused(self, tmp_path):
        save_file({"<anna>": ROWS[0].clone(), "<ben>_1": ROWS[1].clone()}, tmp_path / "x")
        refused(tmp_path / "x", "no embedding")
        save_file({"<anna>": ROWS[0].clone(), "<anna>_2": ROWS[1].clone()}, tmp_path / "x")
        refused(tmp_path / "x", "no embedding")

    def test_rows_that_replace_the_encoders_output_are_left_out_and_said(self, tmp_path, caplog):
        """OneTrainer stores both."""
        save_file({"clip_l": ROWS, "clip_l_out": ROWS + 1, "clip_g": torch.ones(3, 1280), "clip_g_out": torch.zeros(3, 1280)}, tmp_path / "anna.safetensors")
        with caplog.at_level(logging.WARNING):
            read = read_identity(tmp_path / "anna.safetensors")
        assert torch.equal(read.tokens["clip_l"], ROWS) and read.tokens["clip_g"].shape == (3, 1280) and "clip_l_out" in caplog.text
        save_file({"clip_l_out": ROWS}, tmp_path / "only.safetensors")
        refused(tmp_path / "only.safetensors", "only output embeddings")

    @pytest.mark.parametrize("new", [True, False])
    def test_a_table_of_parameters(self, tmp_path, new):
        """A1111's files of 2022 hold a ParameterDict."""
        torch.save({"string_to_token": {"*": 265}, "string_to_param": old_parameter_dict(ROWS, new), "name": "x"}, tmp_path / "anna.pt")
        read = read_identity(tmp_path / "anna.pt")
        assert read.trigger == "<anna>" and torch.equal(read.tokens["clip_l"], ROWS)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_files_of_older_pytorch_and_of_every_precision(self, tmp_path, dtype):
        rows = ROWS.to(dtype)
        content = OrderedDict({"<anna>": torch.nn.Parameter(rows), "step": 3, "text": "ä"})
        for number, options in enumerate(({}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4})):
            torch.save(content, tmp_path / f"{number}.pt", **options)
            assert torch.equal(read_identity(tmp_path / f"{number}.pt").tokens["clip_l"], rows.float()), options

    def test_a_part_of_a_larger_tensor_is_read_where_it_lies(self, tmp_path):
        table = torch.randn(768, 20).T  # strided, and not from the beginning
        torch.save({"<anna>": table[4:7]}, tmp_path / "x.pt")
        assert torch.equal(read_identity(tmp_path / "x.pt").tokens["clip_l"], table[4:7])


class _Call:
    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


class TestWhatIsRefused:
    @pytest.mark.parametrize("ending", [".bin", ".pt", ".safetensors"])
    def test_an_empty_file(self, tmp_path, ending):
        """The commonest broken download."""
        (tmp_path / f"a{ending}").write_bytes(b"")
        assert "is empty" in refused(tmp_path / f"a{ending}")

    @pytest.mark.parametrize("content", [b"\x80", b"\x80\x02", b"PK\x03\x04", b"PK\x05\x06" + bytes(18), b"<!doctype html>", b"version https://git-lfs", b"\0" * 7,
                                         b"\x80\x02cos\nsystem\n", b"\x80\x02(lp0\n.", b"\x80\x02r\xff\xff\xff\x7f.", b"\x80\x02" + b"(" * 50_000 + b"."])
    @pytest.mark.parametrize("ending", [".bin", ".safetensors"])
    def test_a_broken_file(self, tmp_path, content, ending):
        (tmp_path / f"a{ending}").write_bytes(content)
        refused(tmp_path / f"a{ending}")

    @pytest.mark.parametrize("make", [
        lambda: _Call(os.mkdir, ("was-run",)), lambda: _Call(eval, ("open('was-run', 'w')",)), lambda: {"a": _Call(os.system, ("touch was-run",))},
        lambda: OrderedDict(a=_Call(exec, ("open('was-run', 'w')",))), lambda: _Call(getattr, (dict, "get")),
    ])
    @pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
    def test_code_is_not_run(self, tmp_path, monkeypatch, make, protocol):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "a.bin").write_bytes(pickle.dumps(make(), protocol))
        refused(tmp_path / "a.bin")
        if protocol > 1:
            torch.save(make(), tmp_path / "a.pt", pickle_protocol=protocol)
            refused(tmp_path / "a.pt", "running code")
        assert not (tmp_path / "was-run").exists()

    @pytest.mark.parametrize("value", [
        torch.eye(768)[:2].to_sparse(), torch.zeros(2, 768, device="meta"), torch.zeros(2, 768, dtype=torch.float8_e4m3fn), torch.zeros(2, 768, dtype=torch.int32),
        torch.zeros(2, 768, dtype=torch.complex64), torch.zeros(2, 3, 768), torch.zeros(0, 768), torch.tensor(1.0), torch.zeros(76, 768),
    ], ids=str)
    def test_other_kinds_of_tensors(self, tmp_path, value):
        torch.save({"<anna>": value}, tmp_path / "a.pt")
        refused(tmp_path / "a.pt")

    def test_rows_of_unequal_width(self, tmp_path):
        torch.save({"a_v0": torch.zeros(768), "a_v1": torch.zeros(1024)}, tmp_path / "a.bin")
        refused(tmp_path / "a.bin", "no embedding")

    @pytest.mark.parametrize("key", [0, 5.5, None, True, ("a", 1), "\ud800", "\x1b[2J\nb", "x" * 100_000, b"bytes"], ids=lambda key: repr(key)[:20])
    def test_keys_of_every_kind(self, tmp_path, key):
        torch.save({key: torch.zeros(2, 777)}, tmp_path / "a.pt")
        said = refused(tmp_path / "a.pt", "no embedding")
        assert "\x1b" not in said and "\n" not in said and said.encode()
        torch.save({key: ROWS}, tmp_path / "a.pt")
        assert read_identity(tmp_path / "a.pt").trigger.strip("<>")

    @pytest.mark.parametrize("value, says", [(1e300, "not finite"), (1e30, "at most 65504"), (-70000.0, "at most 65504"), (float("nan"), "not finite")])
    def test_values_that_no_encoder_computes_with(self, tmp_path, value, says):
        torch.save({"<anna>": torch.full((2, 768), value, dtype=torch.float64)}, tmp_path / "a.pt")
        refused(tmp_path / "a.pt", says)
        save_file({"emb_params": torch.full((2, 768), value, dtype=torch.float64)}, tmp_path / "a.safetensors")
        refused(tmp_path / "a.safetensors", says)

    def test_numbers_of_thousands_of_digits(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(b"I" + b"9" * 10_000 + b"\n.")
        refused(tmp_path / "a.bin")
        for version in ("9" * 10_000, "1" + "0" * 400, "²"):
            save_file({"clip_l": ROWS}, tmp_path / "a.safetensors", {"idea.format_version": version})
            assert "Update the pack" in refused(tmp_path / "a.safetensors")

    @pytest.mark.parametrize("config", ["[" * 100_000, '{"a":' * 100_000, "9" * 10_000, '{"adapter": {"gate": 1e999, "scope": "tokens"}}', "\x1b[31m"], ids=range(5))
    def test_deep_and_hostile_descriptions(self, tmp_path, config):
        save_file({"clip_l": ROWS}, tmp_path / "a.safetensors", {"idea.format_version": "1", "idea.trigger": "<anna>", "idea.config": config})
        assert "\x1b" not in refused(tmp_path / "a.safetensors")

    def test_names_that_no_disk_takes(self, tmp_path):
        refused(tmp_path / ("x" * 5000), "cannot be opened")
        loop = tmp_path / "loop.safetensors"
        loop.symlink_to(loop)
        refused(loop)


def person(value=1.0, gate=0.5):
    d = 768
    attention = {"in_proj_weight": torch.zeros(3 * d, d), "in_proj_bias": torch.zeros(3 * d), "out_proj.weight": torch.zeros(d, d), "out_proj.bias": torch.zeros(d)}
    adapter = AdapterWeights(torch.full((3, d), value), attention, gate, "tokens")
    return Identity(ModelFamily("sd1", {"clip_l": d}), {"clip_l": ROWS}, IdentityMetadata("<anna>", "fast", "sd1"), adapter=adapter)


class TestWhatIsNotSaved:
    @pytest.mark.parametrize("value", [float("nan"), 1e30, 70000.0])
    def test_values_that_could_not_be_loaded_again(self, tmp_path, value):
        with pytest.raises(IdentityFileError, match="adapter.features holds"):
            save_identity(person(value), tmp_path / "anna")
        assert not list(tmp_path.iterdir())
        load_identity(save_identity(person(65504.0), tmp_path / "anna"))

    def test_a_gate_that_is_no_number(self, tmp_path):
        with pytest.raises(IdentityFileError, match="gate"):
            save_identity(person(gate=float("inf")), tmp_path / "anna")

    def test_a_note_that_no_file_can_hold(self, tmp_path):
        from dataclasses import replace

        noted = person()
        with pytest.raises(IdentityFileError, match="idea.consent holds characters"):
            save_identity(replace(noted, metadata=replace(noted.metadata, consent="agreed \ud800")), tmp_path / "anna")

    def test_notes_that_are_longer_than_anybody_writes(self, tmp_path):
        from dataclasses import replace

        noted = person()
        with pytest.raises(IdentityFileError, match="idea.consent has 20001 characters, expected at most 20000. Shorten it"):
            save_identity(replace(noted, metadata=replace(noted.metadata, consent="x" * 20_001)), tmp_path / "anna")
        save_file({"clip_l": ROWS}, tmp_path / "a.safetensors", {"idea.format_version": "1", "idea.trigger": "<anna>", "idea.method": "x" * 10**6})
        assert "idea.method has 1000000 characters" in refused(tmp_path / "a.safetensors")
        save_file({"clip_l": ROWS}, tmp_path / "a.safetensors", {"idea.format_version": "1", "idea.trigger": " " * 10**6})
        refused(tmp_path / "a.safetensors", "damaged")

    def test_a_name_that_is_too_long_is_not_answered_with_free_some_space(self, tmp_path):
        with pytest.raises(IdentityFileError, match="choose a shorter one") as error:
            save_identity(person(), tmp_path / ("x" * 300))
        assert "space" not in str(error.value) and len(str(error.value)) < 400


def zipped(path, records, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in {"version": "3\n", "byteorder": "little", **records}.items():
            archive.writestr(f"archive/{name}", content)
    return path


def described(shape, strides, numel, keys=("<anna>",)):
    """The program that describes tensors of FloatStorage '0'."""
    body = b"\x80\x02}q\x00("

    def number(value):
        return b"\x8a\x08" + struct.pack("<q", value)

    for key in keys:
        body += b"X" + struct.pack("<I", len(key)) + key.encode() + b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu"
        body += number(numel) + b"tQK\0(" + b"".join(map(number, shape)) + b"t(" + b"".join(map(number, strides)) + b"t\x89ccollections\nOrderedDict\n)RtR"
    return body + b"u."


@unix
class TestSmallFilesLargeMemory:
    """Peaks beside what importing takes."""

    def cost(self, path, limit=60e6):
        grown, said = peak_memory(READ, f"read_identity(Path({str(path)!r}))")
        assert grown < limit, f"{grown / 1e6:.0f} MB"
        return said

    def test_strides_of_zero(self, tmp_path):
        path = tmp_path / "a.bin"
        torch.save({f"a_v{number}": torch.zeros(1).expand(350_000_000) for number in range(2)}, path)
        assert path.stat().st_size < 2500 and self.cost(path).startswith("IdentityFileError")
        path = zipped(tmp_path / "b.bin", {"data.pkl": described((75, 768), (0, 0), 1), "data/0": bytes(4)})
        assert self.cost(path) == ""  # small enough to be meant

    def test_more_values_than_the_file_has(self, tmp_path):
        path = zipped(tmp_path / "a.bin", {"data.pkl": described((3, 768), (768, 1), 1 << 40), "data/0": bytes(4)})
        assert "fewer values than it describes" in self.cost(path)

    def test_an_archive_that_unpacks_to_gigabytes(self, tmp_path):
        path = zipped(tmp_path / "a.pt", {"data.pkl": described((3, 768), (768, 1), 500 << 20), "data/0": bytes(500 << 20)}, zipfile.ZIP_DEFLATED)
        assert path.stat().st_size < 2e6 and "unpacks to" in self.cost(path)

    def test_an_older_file_that_claims_gigabytes(self, tmp_path):
        buffer = io.BytesIO()
        torch.save({"<anna>": ROWS}, buffer, _use_new_zipfile_serialization=False)
        content = bytearray(buffer.getvalue())
        place = content.rindex(struct.pack("<q", ROWS.numel()))
        content[place : place + 8] = struct.pack("<q", 1 << 40)
        (tmp_path / "a.bin").write_bytes(content)
        assert "ends in the middle" in self.cost(tmp_path / "a.bin")

    def test_a_memo_of_billions_of_places(self, tmp_path):
        (tmp_path / "a.bin").write_bytes(b"\x80\x02Nr\xff\xff\xff\x7f.")
        assert self.cost(tmp_path / "a.bin").startswith("IdentityFileError")

    @pytest.mark.parametrize("metadata", ["None", "{'idea.format_version': '2', 'idea.trigger': '<anna>'}"], ids=["foreign", "calls itself ours"])
    def test_a_foreign_gigabyte_is_not_read(self, tmp_path, metadata):
        path = tmp_path / "checkpoint.safetensors"
        header = b'{%s"w":{"dtype":"F32","shape":[250000,1000],"data_offsets":[0,1000000000]}}' % (
            b"" if metadata == "None" else b'"__metadata__":{"idea.format_version":"2","idea.trigger":"<anna>"},')
        with path.open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(8 + len(header) + 1_000_000_000)  # a hole
        assert self.cost(path).startswith("IdentityFileError")


def test_a_pickle_gives_only_what_it_describes(tmp_path):
    torch.save({"a": [1, 2.5, None, True, "x", (torch.zeros(2),)]}, tmp_path / "a.pt")
    (values,) = read_pickle(tmp_path / "a.pt", 1 << 20).values()
    assert values[:5] == [1, 2.5, None, True, "x"] and torch.equal(values[5][0].read(), torch.zeros(2))
