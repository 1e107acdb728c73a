"""Training inside real hosts: right gradients, nothing left behind, cancel and resume, live messages."""
import os
import re
import signal
import time
import urllib.error
import urllib.request

import pytest

from launcher.errors import NodeFailedError
from live_trainings import ask, cancel_when, run_and_stop
from tiny_graphs import FAMILIES, PROMPT, apply, enhanced, probe, sample, tiny, train

RECIPES = ("balanced", "paper", "released", "sefi")
COMBINED = {"recipe": "balanced", "stages": 3, "attention": "face_word"}  # both ideas of SeFi-IDE on an ID-EA recipe


@pytest.fixture
def photo(graph):
    return graph.add("EmptyImage", width=64, height=64, batch_size=1, color=0x4080C0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_text_encoder_is_walked_exactly_as_the_host_does(host, graph, family):
    loader = tiny(graph, family)
    assert host.probe(graph, "training:encodes_like_the_host", a=loader[0], b=loader[1], c=loader[2]) == 0.0


def test_no_weight_is_copied_for_training(host, graph):
    loader = tiny(graph)
    found = host.probe(graph, "training:borrowed_memory", a=loader[0], b=loader[1], c=loader[2])
    assert found.pop("weights") > 100
    assert found == {"same_memory": True, "any_inference": False, "any_gradient": False}


@pytest.mark.parametrize("settings", [*({"recipe": recipe} for recipe in RECIPES), COMBINED], ids=lambda one: "-".join(map(str, one.values())))
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_agree_with_finite_differences(host, graph, family, settings):
    loader = tiny(graph, family)
    start = enhanced(graph, loader[1])
    rows = host.probe(graph, "training:finite_differences", settings, a=loader[0], b=loader[1], c=loader[2], d=start[0])
    own = {"sefi": {"stages"}, "balanced": {"key_value", "ending"}}.get(settings["recipe"], {"adapter", "gate"})
    assert set(rows) >= {"tokens"} | own
    for part, (slope, norm, size) in rows.items():
        assert norm > 0 and abs(slope - norm) <= 0.02 * norm + 3e-7 / size, (part, slope, norm)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_plain_autograd_and_less_is_kept(host, graph, family):
    loader = tiny(graph, family)
    start = enhanced(graph, loader[1])
    found = host.probe(graph, "training:lean_gradients", {"recipe": "balanced"}, a=loader[0], b=loader[1], c=loader[2], d=start[0])
    assert found["pairs"] >= 3 and found["difference"] <= 1e-5
    assert not found["counted"] or found["kept"] < found["plainly"]


@pytest.mark.parametrize("settings", [*({"recipe": recipe} for recipe in RECIPES), COMBINED], ids=lambda one: "-".join(map(str, one.values())))
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_is_what_is_used(host, graph, family, settings):
    loader = tiny(graph, family)
    start = enhanced(graph, loader[1])
    for timestep in (100, 400, 899):
        found = host.probe(graph, "training:used_as_trained", {**settings, "timestep": timestep}, a=loader[0], b=loader[1], c=loader[2], d=start[0])
        assert found["effect"] > 5e-3
        assert found["difference"] <= 5e-3 * found["effect"]  # the file's float16, nothing else


@pytest.mark.one_host
@pytest.mark.parametrize("recipe", RECIPES)
def test_thirty_steps_lower_the_loss_on_what_they_saw_and_change_exactly_the_recipes_parts(host, graph, recipe):
    loader = tiny(graph)
    start = enhanced(graph, loader[1])
    found = host.probe(graph, "training:thirty_steps", {"recipe": recipe, "batch": 4, "lr": 0.0015}, a=loader[0], b=loader[1], c=loader[2], d=start[0])
    assert found["after"] < found["before"]
    for part, (some, every) in found["changed"].items():
        assert every if part in found["trains"] else not some, part


def originals(host, graph, loader):
    return host.probe(graph, "state:originals", a=loader[0], b=loader[1])


def test_models_are_untouched_by_training_error_and_cancel(host, graph, photo):
    """On one and the same MODEL and CLIP, kept by the host between the queues."""
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    latent = sample(graph, loader[0], loader[1])
    before = originals(host, graph, loader), host.probe(graph, "basics:digest", a=latent[0])
    start = enhanced(graph, loader[1])

    def queue(*nodes):
        """The graph with some nodes more."""
        host.run(type(graph)({**graph.prompt, **{node: more.prompt[node] for node in nodes}}))

    more = type(graph)(dict(graph.prompt))
    trained = train(more, loader, photo[0], start[0], recipe="paper", steps=2)
    broken = probe(more, "failures:nan_after", {"steps": 2}, a=loader[0], b=loader[1], c=loader[2], d=start[0])
    long = train(more, loader, photo[0], start[0], steps=5000, seed=3)

    queue(trained.id)
    assert (originals(host, graph, loader), host.probe(graph, "basics:digest", a=latent[0])) == before
    with pytest.raises(NodeFailedError, match="not finite 3 times"):
        queue(broken.id)
    assert (originals(host, graph, loader), host.probe(graph, "basics:digest", a=latent[0])) == before
    cancel_when(host, type(graph)({**graph.prompt, long.id: more.prompt[long.id]}), lambda step: step >= 2)
    assert (originals(host, graph, loader), host.probe(graph, "basics:digest", a=latent[0])) == before


@pytest.mark.one_host
def test_cancel_keeps_the_work_and_the_next_queue_resumes_to_the_same_identity(host, graph, photo):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    start = enhanced(graph, loader[1], seed=11)
    trained = train(graph, loader, photo[0], start[0], steps=6, seed=4)
    seen = cancel_when(host, graph, lambda step: step >= 2)
    assert seen and all(m["steps"] == 6 and m["losses"][-1] == m["loss"] for m in seen)
    text = host.run(graph).outputs[trained.id]["text"][0]
    assert "resumed at step" in text and "6 steps" in text
    resumed = host.probe(graph, "identities:digest", a=trained[0])

    host.client.free()
    again = host.run(graph).outputs[trained.id]["text"][0]
    assert "earlier training" in again
    assert host.probe(graph, "identities:digest", a=trained[0]) == resumed

    # The same training in one go, with nothing kept of the first.
    other = type(graph)(dict(graph.prompt))
    fresh = train(other, loader, photo[0], start[0], steps=6, seed=4)
    del other.prompt[trained.id]
    assert host.probe(type(graph)(), "identities:forget_trainings") > 0
    host.client.free()
    assert "earlier" not in host.run(other).outputs[fresh.id]["text"][0]
    assert host.probe(other, "identities:digest", a=fresh[0]) == resumed


@pytest.mark.one_host
def test_a_killed_host_loses_no_more_than_the_time_between_two_saves(host, graph, photo):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    start = enhanced(graph, loader[1], seed=13)
    trained = train(graph, loader, photo[0], start[0], steps=10, seed=6)
    host.probe(type(graph)(), "identities:forget_trainings")
    with host.another_process() as doomed:
        doomed.probe(type(graph)(), "identities:save_always")
        doomed.client.submit(graph.prompt)
        deadline = time.monotonic() + 240
        while not any(name.endswith(".partial") for name in host.probe(type(graph)(), "identities:kept_trainings")):
            assert time.monotonic() < deadline, doomed.process.last_lines()
        os.kill(doomed.process.process_id, getattr(signal, "SIGKILL", signal.SIGTERM))
    text = host.run(graph).outputs[trained.id]["text"][0]
    assert int(re.search(r"resumed at step (\d+)", text)[1]) >= 1 and "10 steps" in text
    assert not any(name.endswith(".partial") for name in host.probe(type(graph)(), "identities:kept_trainings"))


@pytest.mark.one_host
def test_the_same_seed_gives_the_same_picture_three_times_and_from_the_file(host, graph, photo):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    start = enhanced(graph, loader[1], seed=12)
    trained = train(graph, loader, photo[0], start[0], steps=2, seed=5)
    applied = apply(graph, loader[0], loader[1], trained[0])
    latent = sample(graph, applied[0], applied[1])
    saved = graph.add("IDEA_SaveIdentity", identity=trained[0], filename="same_picture")
    digests = []
    for _ in range(3):
        digests.append(host.probe(graph, "basics:digest", a=latent[0])["a"])
        host.client.free()
    assert len(set(digests)) == 1

    reloaded = type(graph)()
    loader = reloaded.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    identity = reloaded.add("IDEA_LoadIdentity", identity="same_picture.safetensors")
    applied = apply(reloaded, loader[0], loader[1], identity[0])
    latent = sample(reloaded, applied[0], applied[1])
    assert host.probe(reloaded, "basics:digest", a=latent[0])["a"] == digests[0]
    assert saved.id in graph.prompt


def test_the_untrained_start_can_be_applied_directly(host, graph):
    loader = tiny(graph)
    start = enhanced(graph, loader[1])
    applied = apply(graph, loader[0], loader[1], start[0])
    latent = sample(graph, applied[0], applied[1], PROMPT.replace("<anna>", "<id>"))
    plain = sample(graph, loader[0], loader[1], PROMPT.replace("<anna>", "<id>"))
    assert host.probe(graph, "state:compare", a=latent[0], b=plain[0]) > 1e-3


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_in_the_graph(host, graph, photo, family):
    loader = tiny(graph, family)
    start = enhanced(graph, loader[1])
    trained = train(graph, loader, photo[0], start[0])
    applied = apply(graph, loader[0], loader[1], trained[0])
    latent, plain = sample(graph, applied[0], applied[1]), sample(graph, loader[0], loader[1])
    assert host.probe(graph, "state:compare", a=latent[0], b=plain[0]) > 1e-4


@pytest.mark.one_host
def test_a_restart_of_the_host_does_not_train_the_same_thing_again(host, graph, photo):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    trained = train(graph, loader, photo[0], enhanced(graph, loader[1], seed=13)[0], steps=2, seed=6)
    assert "earlier" not in host.run(graph).outputs[trained.id]["text"][0]
    with host.another_process() as again:
        assert "earlier training" in again.run(graph).outputs[trained.id]["text"][0]


def test_kept_trainings_do_not_fill_the_disk(host, graph):
    assert host.probe(graph, "identities:trimmed") == {"left": ["a", "d"], "others": []}


def test_models_with_patches_are_known_again_once_they_are_loaded(host, graph):
    """A LoRA, a merge: the host writes patches into the weights of what it loads; a training must be found again all the same."""
    one, other = tiny(graph, seed=0), tiny(graph, seed=40)
    model = graph.add("ModelMergeSimple", model1=one[0], model2=other[0], ratio=0.7)
    clip = graph.add("CLIPMergeSimple", clip1=one[1], clip2=other[1], ratio=0.7)
    found = host.probe(graph, "training:hashes_when_loaded", a=model[0], b=clip[0], c=one[2], d=one[0])
    assert found["loaded"] == found["before"]
    assert found["unpatched"] != found["before"]["model"]  # the patches count


def test_another_noise_schedule_is_another_training(host, graph):
    loader = tiny(graph)
    changed = graph.add("ModelSamplingDiscrete", model=loader[0], sampling="v_prediction", zsnr=False)
    found = [host.probe(graph, "training:hashes_when_loaded", a=model, b=loader[1], c=loader[2], d=loader[0]) for model in (loader[0], changed[0])]
    assert found[0]["before"]["model"] != found[1]["before"]["model"]


def test_a_first_step_with_a_bad_loss_does_not_lose_the_training(host, graph):
    loader = tiny(graph)
    found = host.probe(graph, "failures:first_step_is_nan", a=loader[0], b=loader[1], c=loader[2], d=enhanced(graph, loader[1], seed=41)[0])
    assert "3 steps" in found["text"] and "1 steps with a bad loss skipped" in found["text"]


@pytest.mark.one_host
def test_a_kept_training_still_has_its_face_and_a_damaged_one_is_made_again(host, graph, photo):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    trained = train(graph, loader, photo[0], enhanced(graph, loader[1], seed=42)[0], steps=1, seed=9)
    fresh = host.probe(graph, "identities:face", a=trained[0])
    host.client.free()
    kept = host.probe(graph, "identities:face", a=trained[0])
    assert fresh and kept == fresh
    assert host.probe(type(graph)(), "identities:damage_trainings") > 0
    host.client.free()
    assert "earlier" not in host.run(graph).outputs[trained.id]["text"][0]


def test_finding_out_how_this_host_adds_happens_where_it_computes(host, graph):
    """On a small card some weights wait elsewhere; the trial must not follow them."""
    assert host.probe(graph, "training:trial_device") == "cpu"


def test_sefi_needs_no_face_and_the_others_say_so(host, graph, photo):
    loader = tiny(graph)
    start = graph.add("IDEA_IDEnhancer", clip=loader[1], names="words", names_text="human face", enhancer_seed=0)
    trained = train(graph, loader, photo[0], start[0], recipe="sefi")
    info = host.probe(graph, "identities:summary", a=trained[0])
    assert info["stages"] == 5 and info["face"] is False
    with pytest.raises(NodeFailedError, match="starts from a face embedding.*ID Enhancer.*recipe sefi"):
        host.probe(graph, "identities:summary", a=train(graph, loader, photo[0], start[0], recipe="paper")[0])


@pytest.mark.one_host
def test_stages_and_attention_are_options_of_the_train_node(host, graph, photo):
    loader = tiny(graph)
    start = enhanced(graph, loader[1])
    mask = graph.add("SolidMask", value=1.0, width=64, height=64)
    plain = host.probe(graph, "identities:summary", a=train(graph, loader, photo[0], start[0], recipe="paper")[0])
    staged = host.probe(graph, "identities:summary", a=train(graph, loader, photo[0], start[0], recipe="paper", stages=2)[0])
    looking = [
        host.probe(graph, "identities:summary", a=train(graph, loader, photo[0], start[0], recipe="paper", attention=attention, masks=mask[0])[0])
        for attention in ("face word", "face mask")
    ]
    assert plain["stages"] == 0 and staged["stages"] == 2
    assert len({one["hash"] for one in (plain, staged, *looking)}) == 4
    other = graph.add("EmptyImage", width=80, height=64, batch_size=1, color=0x4080C0)  # not the photograph Face Embed saw
    with pytest.raises(NodeFailedError, match="Connect masks of Face Embed"):
        host.probe(graph, "identities:summary", a=train(graph, loader, other[0], start[0], recipe="paper", attention="face mask")[0])


@pytest.mark.one_host
def test_stop_ends_the_training_and_the_graph_goes_on_but_it_is_not_kept_as_finished(host, graph, photo):
    loader = graph.add("CheckpointLoaderSimple", ckpt_name=host.checkpoint())
    trained = train(graph, loader, photo[0], enhanced(graph, loader[1], seed=71)[0], steps=2000, seed=71)
    outputs, states, late, answers = run_and_stop(host, graph, trained)
    assert "ended by Stop" in outputs[trained.id]["text"][0] and answers == [{"stopping": True}] and states[-1] == "stopped"
    assert [one["progress"]["node"] for one in late] == [trained.id] and late[0]["progress"]["step"] >= 1
    assert ask(host, "/idea/training") == [] and ask(host, "/idea/training/stop", {"node": trained.id}) == {"stopping": False}

    host.client.free()  # now the node runs again, and goes on where Stop was pressed
    seen = cancel_when(host, graph, lambda step: step >= 1)
    assert seen[0]["step"] > 1


@pytest.mark.one_host
def test_a_full_disk_costs_neither_the_person_nor_the_training(host, graph, photo):
    """The artist gets the identity; the training stays on disk until the identity can be kept, so that it is there after a restart."""
    loader = tiny(graph)
    trained, said = train(graph, loader, photo[0], enhanced(graph, loader[1], seed=75)[0], steps=4, seed=75), []
    host.probe(type(graph)(), "failures:fill_the_disk")
    try:
        said.append(host.run(graph).outputs[trained.id]["text"][0])
    finally:
        host.probe(type(graph)(), "failures:make_room")
    for _ in range(2):
        host.client.free()  # what the host remembers is gone, as after a restart
        said.append(host.run(graph).outputs[trained.id]["text"][0])
    assert "4 steps" in said[0] and "resumed" not in said[0] and "resumed at step 4" in said[1] and "taken from an earlier training" in said[2], said


FOREIGN = {"Origin": "null", "Content-Type": "application/json"}, {"Origin": "null", "Content-Type": "text/plain"}, {"Content-Type": "text/plain"}, {
    "Origin": "https://example.com", "Content-Type": "application/json"}


def test_a_page_of_another_site_cannot_stop_a_training(host, graph, photo):
    """A frame in a sandbox has the origin null, which hosts let pass, and may send plain text without asking first."""
    loader = tiny(graph)
    trained, refused = train(graph, loader, photo[0], enhanced(graph, loader[1], seed=74)[0], steps=6, seed=74), []

    def press(kind, data):
        if kind == "idea.progress" and not refused:
            for headers in FOREIGN:
                with pytest.raises(urllib.error.HTTPError) as error:
                    ask(host, "/idea/training/stop", {"node": trained.id}, headers)
                refused.append(error.value.code)

    text = host.run(graph, on_message=press).outputs[trained.id]["text"][0]
    assert refused == [403, 415, 415, 403] and "6 steps" in text and "Stop" not in text
    own = {"Origin": host.client.address, "Content-Type": "application/json"}
    assert ask(host, "/idea/training/stop", {"node": trained.id}, own) == {"stopping": False}


@pytest.mark.one_host
def test_previews_reach_the_pages_and_change_nothing_that_is_learned(host, graph, photo):
    loader = tiny(graph)
    start = enhanced(graph, loader[1], seed=72)
    plain = train(graph, loader, photo[0], start[0], steps=4, seed=72)
    before = host.probe(graph, "identities:digest", a=plain[0])
    assert host.probe(type(graph)(), "identities:forget_trainings") > 0
    shown = type(graph)({key: value for key, value in graph.prompt.items() if key != plain.id})
    again = train(shown, loader, photo[0], start[0], steps=4, seed=72, preview_every=2)
    host.client.free()
    seen = []
    text = host.run(shown, on_message=lambda kind, data: seen.append(data) if kind == "idea.preview" else None).outputs[again.id]["text"][0]
    assert "earlier" not in text
    assert [one["step"] for one in seen] == [2, 4]
    assert all(one["image"].startswith("data:image/jpeg") and one["likeness"] is None for one in seen)
    assert host.probe(shown, "identities:digest", a=again[0]) == before


@pytest.mark.one_host
def test_another_face_is_no_other_training_where_the_recipe_does_not_read_it(host, graph, photo):
    loader = tiny(graph)
    first, other = (train(graph, loader, photo[0], enhanced(graph, loader[1], seed=seed)[0], recipe="balanced", steps=2, seed=191) for seed in (191, 192))
    outputs = host.run(graph).outputs  # one run: in a second a host that was short of memory would train neither
    said = [outputs[node.id]["text"][0] for node in (first, other)]
    assert sum("earlier training" in text for text in said) == 1
    digests = [host.probe(graph, "identities:digest", a=node[0]) for node in (first, other)]
    faces = [host.probe(graph, "identities:face", a=node[0]) for node in (first, other)]
    assert faces[0] != faces[1] and len(digests) == 2


@pytest.mark.one_host
def test_what_a_check_advises_for_the_base_model_is_followed_and_said(host, graph, photo):
    loader = tiny(graph)
    start = enhanced(graph, loader[1])[0]
    node = lambda **more: train(graph, loader, photo[0], start, steps=1, seed=193, **more)  # noqa: E731
    own = node()
    assert "times the recipe's rate" not in host.run(graph).outputs[own.id]["text"][0]
    kept = host.probe(graph, "identities:advise", {"recipe": "fast", "rate": 2.0}, a=loader[0], b=loader[1], c=loader[2])
    try:
        host.client.free()
        assert "at 2 times the recipe's rate, as a check of this base model advises" in host.run(graph).outputs[own.id]["text"][0]
        batch = node(batch=8)
        assert "8 pictures in a step instead of 4: a step goes as far and is steadier" in host.run(graph).outputs[batch.id]["text"][0]
    finally:
        os.remove(kept)
