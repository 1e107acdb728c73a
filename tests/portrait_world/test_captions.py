"""One grammar for captions and prompts, all of it inside CLIP's vocabulary."""
import numpy as np

from portrait_world import tokenizer
from portrait_world.networks.text_encoder import used_ids
from portrait_world.world import captions
from portrait_world.world.people import FIRST_NAMES, LAST_NAMES, names, person
from portrait_world.world.portrayal import Shot, sample_shot


def test_the_full_prompt_says_everything():
    shot = Shot(scene="beach", colour="orange", garment="shirt", expression="smiling", accessory="glasses", style="painting")
    said = captions.prompt("anna smith", shot)
    assert said == "an oil painting of anna smith smiling wearing an orange shirt and glasses on a beach"


def test_captions_stay_inside_the_trained_words():
    known, rng = set(used_ids()), np.random.default_rng(0)
    for k in range(500):
        subject = names()[k % 360] if k % 2 else captions.describe(person("unnamed", k), rng)
        said = captions.caption(subject, sample_shot(rng), rng)
        assert subject in said
        assert set(tokenizer.encode(said)) <= known, said


def test_every_name_is_two_tokens():
    for word in (*FIRST_NAMES, *LAST_NAMES):
        assert len(tokenizer.encode(word)) == 1, word


def test_an_accessory_is_nearly_always_said():
    rng, shot = np.random.default_rng(0), Shot(accessory="hat")
    assert sum("a hat" in captions.caption("anna smith", shot, rng) for _ in range(300)) > 275


def test_training_prompts_of_the_engine_are_in_the_grammar():
    from pathlib import Path

    templates = Path(__file__).parents[2] / "idea_engine" / "data" / "prompt_templates.txt"
    known = set(used_ids())
    lines = [line for line in templates.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    understood = [set(tokenizer.encode(line.replace("{tokens}", "anna smith"))) <= known for line in lines]
    assert sum(understood) >= 0.8 * len(lines)
