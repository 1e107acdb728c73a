"""The losses against independent references."""
import numpy as np
import torch

from idea_engine.methods.anchor_distance import FLOOR, ZETA, AnchorDistance
from idea_engine.training.losses import noise_loss


def test_noise_loss_is_the_mean_square_of_each_sample():
    output, target = torch.randn(3, 4, 5, 6), torch.randn(3, 4, 5, 6)
    per_sample = noise_loss(output, target)
    assert per_sample.shape == (3,)
    torch.testing.assert_close(per_sample.mean(), torch.nn.functional.mse_loss(output, target))


def test_anchor_distance_equals_the_dense_mahalanobis_distance():
    generator = np.random.default_rng(0)
    anchor, tokens = generator.normal(size=(2, 24)), generator.normal(size=(2, 24))
    covariance = np.cov(anchor.T) + ZETA * np.eye(24)
    inverse = np.linalg.inv(covariance)
    expected = np.mean([np.sqrt((v - a) @ inverse @ (v - a)) for v, a in zip(tokens, anchor)])
    found = AnchorDistance(torch.tensor(anchor, dtype=torch.float32))(torch.tensor(tokens, dtype=torch.float32))
    np.testing.assert_allclose(found.item(), expected, rtol=1e-5)


def test_anchor_distance_along_the_names_own_axis_is_short():
    anchor = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    distance = AnchorDistance(anchor)
    along, across = distance(anchor + torch.tensor([0.5, 0.0, 0.0])), distance(anchor + torch.tensor([0.0, 0.5, 0.0]))
    np.testing.assert_allclose(along.item(), 0.5 / np.sqrt(2 + ZETA), rtol=1e-5)  # cov of ±1 with n−1 = 1 is 2
    np.testing.assert_allclose(across.item(), 0.5 / np.sqrt(ZETA), rtol=1e-5)


def test_anchor_distance_at_the_anchor_is_the_floor_and_has_a_gradient_that_is_not_nan():
    anchor = torch.randn(2, 8)
    tokens = anchor.clone().requires_grad_()
    distance = AnchorDistance(anchor)(tokens)
    distance.backward()
    np.testing.assert_allclose(distance.item(), FLOOR**0.5, rtol=1e-5)
    assert torch.isfinite(tokens.grad).all()


def test_a_single_anchor_row_has_no_covariance_but_a_distance():
    distance = AnchorDistance(torch.zeros(1, 4))(torch.full((1, 4), 0.5))
    np.testing.assert_allclose(distance.item(), 1 / np.sqrt(ZETA), rtol=1e-5)
