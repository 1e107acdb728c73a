"""The loss chart."""
import math

import numpy as np
import pytest

from idea_engine.sheets.chart import HEIGHT, WIDTH, loss_chart, nice_ticks, running_mean


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (0.113, 0.127), (5.0, 5.0), (-3.0, 40.0), (1e-9, 2e-9), (0.0, 0.0)])
def test_ticks_enclose_the_values_in_equal_steps(low, high):
    ticks = nice_ticks(low, high)
    assert 2 <= len(ticks) <= 8 and ticks[0] <= low and ticks[-1] >= high
    np.testing.assert_allclose(np.diff(ticks), ticks[1] - ticks[0], rtol=1e-6)


def test_the_running_mean_of_a_constant_is_that_constant():
    np.testing.assert_allclose(running_mean([3.0] * 7), 3.0)
    assert math.isfinite(running_mean([1.0, math.nan, 2.0])[-1])


@pytest.mark.parametrize("losses", [[], [0.5], [0.5, None, 0.4], [None], [1.0, math.inf, 0.2], list(np.linspace(1, 0.1, 400))])
def test_any_course_of_training_can_be_drawn(losses):
    assert loss_chart(losses, "x").size == (WIDTH, HEIGHT)


def test_a_falling_loss_goes_down_the_picture():
    picture = np.asarray(loss_chart(list(np.linspace(1.0, 0.1, 50)), "")).astype(int)
    curve = (picture[..., 2] - picture[..., 0] > 120) & (picture[..., 2] > 150)
    rows = [np.flatnonzero(column).mean() for column in curve.T if column.any()]
    assert rows[-1] > rows[0] + 100
