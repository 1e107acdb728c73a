"""What a node that is about one person makes of a host's lists; needs no host."""
import pytest
import torch

from bare_pack import bare_module
from idea_engine.errors import ListError


@pytest.fixture(scope="module")
def lists():
    with bare_module("nodes.host.lists") as module:
        yield module


@pytest.fixture
def node(lists):
    """A node whose function gives back what it got."""

    class Node:
        @lists.one_person("Train Identity", pictures=("image", "masks"), lines=("caption",))
        def run(self, model, image, recipe="fast", masks=None, caption=""):
            return model, image, recipe, masks, caption

    return Node()


def test_pictures_come_as_a_list_and_everything_else_once(node):
    model, one, two = object(), torch.rand(1, 4, 4, 3), torch.rand(2, 5, 3, 3)
    got = node.run(model=[model], image=[one, two], recipe=["best"])
    assert got[0] is model and got[1][0] is one and got[1][1] is two and got[2:] == ("best", None, "")


def test_what_is_no_list_is_taken_as_it_is(node):
    model, image = object(), torch.rand(1, 4, 4, 3)
    got = node.run(model, image, recipe="best")
    assert got[0] is model and got[1] == [image] and got[2] == "best"


def test_a_value_that_comes_again_and_again_is_one_value(node):
    model = object()
    assert node.run(model=[model, model], image=[None], recipe=["best", "best"])[:3] == (model, None, "best")


@pytest.mark.parametrize("values", [["best", "fast"], [1, 2], [object(), object()]])
def test_several_values_where_there_can_only_be_one_are_refused(node, values):
    with pytest.raises(ListError, match="Train Identity got a list of 2 different values for recipe.*one Train Identity for each"):
        node.run(model=[None], image=[None], recipe=values)


def test_a_list_of_texts_keeps_every_text(node):
    assert node.run(model=[None], image=[None], caption=["smiling", "", "on a beach"])[4] == ("smiling", "", "on a beach")
    assert node.run(model=[None], image=[None], caption=["smiling\non a beach"])[4] == "smiling\non a beach"


def test_pictures_of_one_size_leave_as_one_batch_and_others_each_alone(lists):
    same, other = [torch.rand(4, 6, 3), torch.rand(4, 6, 3)], torch.rand(5, 3, 3)
    batch, = lists.as_lists(same)
    assert torch.equal(batch, torch.stack(same))
    assert [tuple(one.shape) for one in lists.as_lists([*same, other])] == [(1, 4, 6, 3), (1, 4, 6, 3), (1, 5, 3, 3)]
    assert torch.equal(lists.as_lists([*same, other])[2][0], other)
    assert lists.as_lists([other])[0].data_ptr() == other.data_ptr()
