"""Where a person's rows stand among the host's tokens; needs no host."""
import pytest
import torch

from bare_pack import bare_module


@pytest.fixture(scope="module")
def positions():
    with bare_module("nodes.host.places") as module:
        yield module.positions_of


class ReadAtMost(list):
    """Tokens that notice when somebody never stops reading."""

    def __getitem__(self, key):
        self.read = getattr(self, "read", 0) + 1
        assert self.read < 100, "the search does not end"
        return super().__getitem__(key)


ROWS = torch.tensor([[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize("tokens, found", [
    ([320, *ROWS, 539], [1]), ([*ROWS, *ROWS, 7], [0, 2]), ([ROWS[0], 320, ROWS[1]], []), ([ROWS[0]], []), ([], []),
    ([ROWS[0], *ROWS], [1]), ([torch.zeros(3), *ROWS], [1])])
def test_rows_are_found_where_they_follow_one_another(positions, tokens, found):
    assert positions(ReadAtMost(tokens), ROWS) == found


def test_nobody_stands_nowhere(positions):
    assert positions(ReadAtMost([320, *ROWS, 539]), torch.zeros(0, 2)) == []
