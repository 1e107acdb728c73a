"""How far the learned tokens are from the anchor of the names (METHODS §1.5)."""
from __future__ import annotations

import torch
from torch import Tensor

ZETA = 2e-5  # regularises the covariance, METHODS §1.5
FLOOR = 1e-8  # clamp under the square root, METHODS §1.5


class AnchorDistance:
    """Mahalanobis distance of the learned tokens from their anchor (METHODS §1.5).

    ``mean_i sqrt((v_i−A_i)ᵀ Σ⁻¹ (v_i−A_i))`` with ``Σ = cov(A) + ζI``, A's n rows being the observations. Beside ζI, Σ has rank n−1 at
    most: the (w, w) matrix is never formed, Σ⁻¹ is applied along its few principal axes and as 1/ζ across them.
    """

    def __init__(self, anchor: Tensor, zeta: float = ZETA, spread: Tensor | None = None):
        """Args: anchor: (n, w) rows A. spread: (k, w) with ``spreadᵀ·spread`` in the place of cov(A); None for cov(A) itself."""
        self.anchor = anchor.detach().float()
        self.zeta = zeta
        # cov(A) = XᵀX with X the centred rows over sqrt(n−1); of a single row the covariance is taken as zero.
        factor = (self.anchor - self.anchor.mean(0)) / max(anchor.shape[0] - 1, 1) ** 0.5 if spread is None else spread.detach().float()
        _, singular, self.axes = torch.linalg.svd(factor, full_matrices=False)
        self.variances = singular.square() + zeta

    def __call__(self, tokens: Tensor) -> Tensor:
        """(n, w) learned tokens → scalar."""
        delta = tokens.float() - self.anchor
        along = delta @ self.axes.T
        across = delta - along @ self.axes
        squared = (along.square() / self.variances).sum(1) + across.square().sum(1) / self.zeta
        return squared.clamp_min(FLOOR).sqrt().mean()
