"""The game: what the generator and the discriminators minimise, each its own loss alone, in one step of one optimizer.

Both players move at the same time (ours); the released code moves the generator first. One Adam then serves both, since
it treats every parameter by itself.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call

Judged = list[list[Tensor]]


class Players(nn.Module):
    """Generator and discriminators, and the sum of their losses that leaves each player its own gradient."""

    def __init__(
        self,
        generator: nn.Module,
        discriminators: nn.Module,
        *,
        feature_matching_weight: float,
        perceptual: nn.Module | None = None,
        perceptual_weight: float = 0.0,
    ) -> None:
        super().__init__()
        self.generator, self.discriminators, self.perceptual = generator, discriminators, perceptual
        self._feature_matching_weight, self._perceptual_weight = feature_matching_weight, perceptual_weight

    def forward(self, condition: Tensor, images: Tensor) -> dict[str, Tensor]:
        """Return ``loss`` to minimise and its unweighted terms for (N, C, H, W) conditions and images in [-1, 1].

        ``loss`` is the generator's loss under discriminators that get no gradient from it, plus the discriminators'
        loss of images that carry no gradient to the generator.
        """
        made = self.generator(condition)
        real = self.discriminators(condition, images)
        frozen = {name: weight.detach() for name, weight in self.discriminators.named_parameters()}
        seen = functional_call(self.discriminators, frozen, (condition, made))
        judged = self.discriminators(condition, made.detach())
        terms = {
            "adversarial_loss": adversarial_loss(seen),
            "feature_matching_loss": feature_matching_loss(real, seen),
            "discriminator_loss": discriminator_loss(real, judged),
        }
        loss = terms["adversarial_loss"] + self._feature_matching_weight * terms["feature_matching_loss"]
        if self.perceptual is not None:
            terms["perceptual_loss"] = self.perceptual(made, images)
            loss = loss + self._perceptual_weight * terms["perceptual_loss"]
        return {"loss": loss + terms["discriminator_loss"], **terms}


def adversarial_loss(made: Judged) -> Tensor:
    """Return sum_k E (D_k(s, G(s)) - 1)^2, the generator's part of LSGAN."""
    return total([(scale[-1].float() - 1).square().mean() for scale in made])


def discriminator_loss(real: Judged, made: Judged) -> Tensor:
    """Return sum_k 1/2 (E (D_k(s, x) - 1)^2 + E D_k(s, G(s))^2)."""
    pairs = zip(real, made, strict=True)
    squares = [((r[-1].float() - 1).square().mean(), m[-1].float().square().mean()) for r, m in pairs]
    return total([(of_real + of_made) / 2 for of_real, of_made in squares])


def feature_matching_loss(real: Judged, made: Judged) -> Tensor:
    """Return sum_k sum_i 1/N_i |D_k^i(s, x) - D_k^i(s, G(s))|_1 over all layers i before the scores (paper, eq. 4).

    The features of real images are the aim and get no gradient.
    """
    layers = [pair for r, m in zip(real, made, strict=True) for pair in zip(r[:-1], m[:-1], strict=True)]
    return total([(m.float() - r.detach().float()).abs().mean() for r, m in layers])


def total(terms: list[Tensor]) -> Tensor:
    """Return the sum of scalars."""
    return torch.stack(terms).sum()
