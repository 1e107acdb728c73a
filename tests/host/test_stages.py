"""Identities in stages (SeFi-IDE) in real hosts, against the same computed from the host's own parts."""
import pytest

from tiny_graphs import FAMILIES, PROMPT, apply, probe, random_identity, sample, tiny

SETTINGS = (
    dict(sampler_name="euler", scheduler="normal", steps=8),
    dict(sampler_name="dpmpp_2m", scheduler="karras", steps=7, denoise=0.6),
    dict(sampler_name="heun", scheduler="exponential", steps=5, denoise=0.35),
    dict(sampler_name="uni_pc", scheduler="simple", steps=6, cfg=1.0),
    dict(sampler_name="euler_ancestral", scheduler="ddim_uniform", steps=9),
)


def reference(graph, loader, person, text=PROMPT):
    """MODEL and CLIP of the independent computation."""
    return probe(graph, "stages:reference", {"text": text}, a=loader[0], b=loader[1], c=person[0])


def agree(host, graph, ours, theirs, plain):
    """Equal up to rounding, measured by what the stages change at all."""
    effect = host.probe(graph, "state:compare", a=theirs[0], b=plain[0])
    assert effect > 1e-3
    assert host.probe(graph, "state:compare", a=ours[0], b=theirs[0]) < 2e-3 * effect


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda one: f"{one['sampler_name']}-{one['scheduler']}")
def test_the_stages_follow_the_noise_level_of_any_sampler(host, graph, settings):
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe="sefi", seed=61)
    on, other = apply(graph, loader[0], loader[1], person[0]), reference(graph, loader, person)
    latent = sample(graph, loader[0], loader[1], "a cat")[0] if "denoise" in settings else None
    ours, theirs, plain = (sample(graph, model, clip, latent=latent, **settings) for model, clip in ((on[0], on[1]), (other[0], other[1]), (loader[0], other[1])))
    agree(host, graph, ours, theirs, plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_its_stages(host, graph, family):
    loader = tiny(graph, family)
    person = random_identity(graph, loader, recipe="sefi", seed=62, stages=3)
    on, other = apply(graph, loader[0], loader[1], person[0]), reference(graph, loader, person)
    ours, theirs, plain = (sample(graph, model, clip, steps=6) for model, clip in ((on[0], on[1]), (other[0], other[1]), (loader[0], other[1])))
    agree(host, graph, ours, theirs, plain)


@pytest.mark.parametrize("text", ["(<anna>:1.3), smiling", "many words " * 45 + "<anna> at the end", "<anna> beside <anna>"])
def test_weights_long_prompts_and_repetition_are_read_in_every_stage(host, graph, text):
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe="sefi", seed=63)
    on, other = apply(graph, loader[0], loader[1], person[0]), reference(graph, loader, person, text)
    ours, theirs, plain = (sample(graph, model, clip, text, steps=6) for model, clip in ((on[0], on[1]), (other[0], other[1]), (loader[0], other[1])))
    agree(host, graph, ours, theirs, plain)


def test_a_second_pass_at_a_higher_resolution_reads_its_own_stages(host, graph):
    """Hires fix: upscale the latent, sample again from half the noise."""
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe="sefi", seed=64)
    on, other = apply(graph, loader[0], loader[1], person[0]), reference(graph, loader, person)

    def twice(model, clip):
        first = sample(graph, model, clip, steps=5)
        larger = graph.add("LatentUpscale", samples=first[0], upscale_method="bilinear", width=104, height=96, crop="disabled")
        return sample(graph, model, clip, latent=larger[0], steps=6, denoise=0.5)

    agree(host, graph, twice(on[0], on[1]), twice(other[0], other[1]), twice(loader[0], other[1]))


SCHEDULES = {
    "zsnr": ("ModelSamplingDiscrete", dict(sampling="eps", zsnr=True)),
    "lcm": ("ModelSamplingDiscrete", dict(sampling="lcm", zsnr=False)),
    "edm": ("ModelSamplingContinuousEDM", dict(sampling="v_prediction", sigma_max=90.0, sigma_min=0.01)),
}


@pytest.mark.parametrize("recipe, ranged", [("sefi", {}), ("fast", dict(start_at=0.3, end_at=0.7))], ids=("stages", "range"))
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_node_may_exchange_the_schedule_before_ours_or_behind_it(host, graph, schedule, recipe, ranged):
    """Stages and ranges are those of the schedule that is sampled with, and a MODEL that keeps its own is none the wiser."""
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe=recipe, seed=73)
    node, settings = SCHEDULES[schedule]
    on = apply(graph, loader[0], loader[1], person[0], **ranged)
    before = apply(graph, graph.add(node, model=loader[0], **settings)[0], loader[1], person[0], **ranged)
    behind = graph.add(node, model=on[0], **settings)
    again = apply(graph, loader[0], loader[1], person[0], **ranged)
    pictures = [sample(graph, model, on[1], steps=12, scheduler="simple") for model in (before[0], behind[0], on[0], again[0])]
    found = host.probe(graph, "basics:digest", **dict(zip("abcd", (picture[0] for picture in pictures))))
    assert found["a"] == found["b"] and found["c"] == found["d"] and found["a"] != found["c"]


def test_one_stage_that_reads_the_plain_tokens_is_a_plain_identity_bit_for_bit(host, graph):
    loader = tiny(graph)
    both = probe(graph, "stages:one_stage", a=random_identity(graph, loader, seed=65)[0])
    staged, plain = (apply(graph, loader[0], loader[1], both[i]) for i in (0, 1))
    found = host.probe(graph, "basics:digest", a=sample(graph, staged[0], staged[1], steps=4)[0], b=sample(graph, plain[0], plain[1], steps=4)[0])
    assert found["a"] == found["b"]


@pytest.mark.parametrize("stage, acts", [(0, (False, True)), (4, (True, False))])
def test_a_stage_acts_at_its_noise_levels_only(host, graph, stage, acts):
    """The noisier and the cleaner half of a sampling, with two identities that differ in one stage."""
    loader = tiny(graph)
    one = random_identity(graph, loader, recipe="sefi", seed=66)
    other = probe(graph, "stages:changed", {"stage": stage}, a=one[0])
    halves = []
    for start, end in ((0, 5), (5, 10)):
        pair = []
        for person in (one, other):
            on = apply(graph, loader[0], loader[1], person[0])
            pair.append(graph.add(
                "KSamplerAdvanced", model=on[0], positive=graph.add("CLIPTextEncode", clip=on[1], text=PROMPT)[0],
                negative=graph.add("CLIPTextEncode", clip=on[1], text="")[0],
                latent_image=graph.add("EmptyLatentImage", width=64, height=64, batch_size=1)[0], add_noise="enable", noise_seed=1, steps=10, cfg=5.0,
                sampler_name="euler", scheduler="simple", start_at_step=start, end_at_step=end, return_with_leftover_noise="enable",
            ))
        found = host.probe(graph, "basics:digest", a=pair[0][0], b=pair[1][0])
        halves.append(found["a"] != found["b"])
    assert tuple(halves) == acts


def test_prompts_encoded_elsewhere_come_out_as_without_us(host, graph):
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader, recipe="sefi", seed=67)[0])
    graph.add("CLIPTextEncode", clip=on[1], text=PROMPT)
    for text in (PROMPT, "a cat"):  # to the original CLIP the trigger is a few letters
        elsewhere = graph.add("CLIPTextEncode", clip=loader[1], text=text)[0]
        ours, untouched = (sample(graph, model, loader[1], positive=elsewhere, steps=4) for model in (on[0], loader[0]))
        found = host.probe(graph, "basics:digest", a=ours[0], b=untouched[0])
        assert found["a"] == found["b"]


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_image_prompts_in_the_same_graph_act_beside_the_stages(host, graph, family):
    """IPAdapter before our node, behind it, and on both sides: the picture of the independently computed stages with the same image prompts."""
    loader = tiny(graph, family)
    person = random_identity(graph, loader, recipe="sefi", seed=68)

    def image(model, seed=0):
        return probe(graph, "stages:image_prompt", {"seed": seed}, a=model)[0]

    def with_person(model):
        return apply(graph, model, loader[1], person[0])

    def one():
        return image(loader[0])  # anew each time: since February 2026 hosts share the object in the slot between clones, and IPAdapter adds to it

    on, other = with_person(loader[0]), reference(graph, loader, person)
    alone = sample(graph, on[0], on[1], steps=4)
    for ours, theirs, plain in (
        (image(on[0]), image(other[0]), one()), (with_person(one())[0], image(other[0]), one()),
        (image(with_person(one())[0], 1), image(image(other[0]), 1), image(one(), 1)),
    ):
        drawn = sample(graph, ours, on[1], steps=4)
        agree(host, graph, drawn, sample(graph, theirs, other[1], steps=4), sample(graph, plain, other[1], steps=4))
        assert host.probe(graph, "state:compare", a=drawn[0], b=alone[0]) > 1e-2


def wired(graph, clip, wiring):
    """A conditioning with PROMPT and stock conditioning nodes."""
    def encode(text):
        return graph.add("CLIPTextEncode", clip=clip, text=text)[0]

    person, scene = encode(PROMPT), encode("a long and winding road through the hills")
    area = graph.add("ConditioningSetArea", conditioning=person, width=72, height=64, x=56, y=0, strength=1.0)[0]  # a host blends 8 latents of an edge
    mask = graph.add("SolidMask", value=0.7, width=64, height=64)
    made = {
        "combine": lambda: graph.add("ConditioningCombine", conditioning_1=person, conditioning_2=scene),
        "concat": lambda: graph.add("ConditioningConcat", conditioning_to=scene, conditioning_from=person),
        "area": lambda: graph.add("ConditioningCombine", conditioning_1=scene, conditioning_2=area),
        "mask": lambda: graph.add("ConditioningSetMask", conditioning=person, mask=mask[0], strength=1.0, set_cond_area="default"),
        "timesteps": lambda: graph.add("ConditioningSetTimestepRange", conditioning=person, start=0.0, end=0.7),
    }
    return made[wiring]()[0]


@pytest.mark.parametrize("wiring", ("combine", "concat", "area", "mask", "timesteps"))
def test_the_stages_follow_the_prompt_wherever_it_is_wired(host, graph, wiring):
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe="sefi", seed=74)
    on, other = apply(graph, loader[0], loader[1], person[0]), reference(graph, loader, person)
    ours, theirs, plain = (
        sample(graph, model, clip, positive=wired(graph, clip, wiring), size=(128, 64), steps=5)
        for model, clip in ((on[0], on[1]), (other[0], other[1]), (loader[0], other[1]))
    )
    agree(host, graph, ours, theirs, plain)


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_an_embedding_of_another_trainer_in_the_same_prompt_is_left_alone(host, graph, family):
    loader = tiny(graph, family)
    style = probe(graph, "identities:tokens_only", {"seed": 5}, a=loader[1])
    graph.add("IDEA_SaveIdentity", identity=style[0], filename=f"style_{family}")
    host.run(graph)
    person = random_identity(graph, loader, recipe="sefi", seed=75)
    text = f"<anna> in the style of embedding:style_{family}, <anna>"
    on, other = apply(graph, loader[0], loader[1], person[0]), reference(graph, loader, person, text)
    ours, theirs, plain = (sample(graph, model, clip, text, steps=5) for model, clip in ((on[0], on[1]), (other[0], other[1]), (loader[0], other[1])))
    agree(host, graph, ours, theirs, plain)
    alone = f"a house in the style of embedding:style_{family}"
    found = host.probe(graph, "basics:digest", a=sample(graph, on[0], on[1], alone)[0], b=sample(graph, loader[0], loader[1], alone)[0])
    assert found["a"] == found["b"]


def test_there_are_no_more_network_calls_than_without_us(host, graph):
    loader = tiny(graph)
    on = apply(graph, loader[0], loader[1], random_identity(graph, loader, recipe="sefi", seed=69)[0])
    counts = []
    for model, clip in ((on[0], on[1]), (loader[0], loader[1])):
        counted = probe(graph, "stages:counted", a=model)
        counts.append(host.probe(graph, "stages:calls", a=counted[0], b=sample(graph, counted[0], clip, steps=5)[0]))
    assert counts[0] == counts[1] and sum(counts[0]) > 0


def test_the_noise_level_is_read_from_the_device_once_in_a_step(host, graph):
    loader = tiny(graph)
    for recipe, reads in (("sefi", 1), ("fast", 0)):
        person = random_identity(graph, loader, recipe=recipe, seed=70)
        assert host.probe(graph, "stages:sigma_reads", a=loader[0], b=loader[1], c=person[0]) == reads


@pytest.mark.parametrize("family", ("sd1", "sdxl"))
def test_the_file_still_works_as_a_stock_embedding(host, graph, family):
    """embedding:NAME reads the best single approximation."""
    loader = tiny(graph, family)
    person = random_identity(graph, loader, recipe="sefi", seed=71)
    graph.add("IDEA_SaveIdentity", identity=person[0], filename=f"staged_{family}")
    host.run(graph)
    on = apply(graph, loader[0], loader[1], person[0])
    ours = graph.add("CLIPTextEncode", clip=on[1], text=PROMPT)
    stock = graph.add("CLIPTextEncode", clip=loader[1], text=PROMPT.replace("<anna>", f" embedding:staged_{family} "))
    found = host.probe(graph, "basics:digest", a=ours[0], b=stock[0])
    assert found["a"] == found["b"]


def test_a_saved_identity_makes_the_same_picture(host, graph):
    loader = tiny(graph)
    person = random_identity(graph, loader, recipe="sefi", seed=72)
    graph.add("IDEA_SaveIdentity", identity=person[0], filename="staged_again")
    on = apply(graph, loader[0], loader[1], person[0])
    first = host.probe(graph, "basics:digest", a=sample(graph, on[0], on[1], steps=4)[0])
    again = type(graph)()
    loader = tiny(again)
    on = apply(again, loader[0], loader[1], again.add("IDEA_LoadIdentity", identity="staged_again.safetensors")[0])
    assert host.probe(again, "basics:digest", a=sample(again, on[0], on[1], steps=4)[0]) == first
