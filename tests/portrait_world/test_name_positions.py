"""Where a name is in an encoded prompt."""
import torch

from portrait_world.trials.name_positions import contexts, end_of
from portrait_world.trials.trial import PROMPTS, Artist
from portrait_world.world import captions
from portrait_world.world.people import names


def test_every_row_changes_the_positions_it_names_and_no_others():
    made = {what: context(50) for what, context in contexts(Artist()).items()}
    average = made.pop("an average name")
    name, own, behind, both, one = made.values()
    for row, shot in enumerate(PROMPTS):
        words, end = captions.prompt(names()[50], shot).split(), end_of(captions.prompt(names()[50], shot))
        place = words.index(names()[50].split()[0]) + 1  # after the begin mark

        def where(context):
            return (context[row] - average[row]).abs().amax(-1).gt(1e-4).nonzero()[:, 0].tolist()

        assert where(own) == [place, place + 1] and where(both) == [place, place + 1, *range(end, 77)]
        assert where(behind) == where(one) == list(range(end, 77))
        assert set(where(name)) <= set(range(place, 77)) and (one[row, end:] - average[row, end:]).var(0).max() < 1e-9
    assert not torch.equal(behind, one)
