"""docs/hosts.md names all that the pack touches of ComfyUI and nothing else. Read with ast: no host is needed."""
import ast
import re
from collections import Counter

import pytest

import host_names
import hosts_page

ROWS = hosts_page.rows()
NAMES = [name for row in ROWS for name in row.names]


def _is_listed(name: str) -> bool:
    return name in NAMES or any(listed.startswith((f"{name}.", f"{name}[")) for listed in NAMES)


def test_every_name_that_is_used_is_listed():
    unlisted = {name: files for name, files in host_names.uses().items() if not _is_listed(name)}
    assert not unlisted, f"docs/hosts.md lacks {unlisted}"


def test_every_attribute_that_only_a_host_can_have_is_listed():
    """Also where nothing tells whose it is."""
    known = {word for name in NAMES for word in re.findall(r"\w+", name)} | {"normalized_shape"}  # of torch's LayerNorm
    unlisted = {word: files for word, files in host_names.strangers().items() if word not in known}
    assert not unlisted, f"docs/hosts.md lacks {unlisted}"


def test_every_method_that_the_pack_stands_in_front_of_is_listed():
    replaced = host_names.replaced()
    assert replaced
    assert {word: files for word, files in replaced.items() if word not in map(host_names.last_word, NAMES)} == {}


def test_every_listed_name_is_used_where_the_page_says():
    used = host_names.used_in(NAMES)
    for row in ROWS:
        for name in row.names:
            assert used[name], f"{name} is used nowhere: take it out of docs/hosts.md"
        files = sorted(set().union(*(used[name] for name in row.names)), key=lambda file: (file != row.section, file))
        told = ", ".join(f"`{file.removeprefix('nodes/host/')}`" for file in files)
        assert set(row.files) == set(files), f"docs/hosts.md: the row of {row.names[0]} is to say: used in {told}"


def test_what_is_known_of_a_files_variables_is_of_a_file_that_is_there():
    assert [file for file in host_names.IN_FILE if not (host_names.ROOT / file).is_file()] == []


def test_a_name_stands_once_and_in_the_section_of_a_file_that_uses_it():
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    assert [row.names for row in ROWS if row.section not in (*row.files, hosts_page.PRIVATE)] == []


def test_private_names_stand_apart_and_one_file_owns_each():
    for row in ROWS:
        private = any(host_names.last_word(name).startswith("_") and not name.endswith("__") for name in row.names)
        assert private == (row.section == hosts_page.PRIVATE), row.names
        assert not private or len(row.files) == 1, row.names


def test_every_row_says_since_when_and_what_happens_without_it():
    for row in ROWS:
        assert row.has((0, 33, 0)) is not None, row.since
        assert row.gone.endswith("."), row.names


def test_what_the_pack_cannot_do_without_is_in_the_oldest_version_it_is_written_for():
    """Where the node or the pack fails without a name, that version has it."""
    for row in ROWS:
        if re.search(r"does not load|The node that asks|Apply ID Adapter fails|Sampling fails", row.gone):
            assert row.has((0, 3, 41)), row.names


def test_readme_page_and_registry_say_the_same_of_which_comfyui_it_runs_in():
    project = (host_names.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    asked = re.search(r'^requires-comfyui = ">=([\d.]+)"', project, re.M)[1]
    tested = []
    for page in (host_names.ROOT / "README.md", hosts_page.PAGE):
        text = page.read_text(encoding="utf-8")
        said = re.search(r"Tested (?:in|with) (.*?)written\s+for (.*?) and\s+later", text, re.S | re.I)
        assert said[2].removeprefix("ComfyUI ") == asked
        tested.append(set(re.findall(r"0\.[1-9]\d*\.\d+", said[1])))
    assert tested[0] and tested[0] == tested[1]
    assert all(hosts_page.version_of(one) >= hosts_page.version_of(asked) for one in tested[0])


@pytest.mark.parametrize(("code", "name"), [
    ("import comfy.utils as utils\ndef f():\n    utils.brand_new()", "comfy.utils.brand_new"),
    ("from comfy.utils import Other", "comfy.utils.Other"),
    ("import folder_paths\nhasattr(folder_paths, 'get_it')", "folder_paths.get_it"),
    ("import sys\nsys.modules['server'].address", "server.address"),
    ("def f(clip):\n    clone = clip.clone()\n    clone.cond_stage_model.new_method()", "SD1ClipModel.new_method"),
    ("def f(model):\n    return model.model.diffusion_model.label_emb", "UNetModel.label_emb"),
    ("def patch(n, extra):\n    return extra.get('transformer_index')", 'extra["transformer_index"]'),
])
def test_a_new_name_would_be_seen(code, name):
    assert name in host_names.names_in(ast.parse(code), "nodes/host/new.py") and not _is_listed(name)
