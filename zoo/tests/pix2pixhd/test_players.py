"""The losses are their equations, and each player gets the gradient of its own alone."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import l1_loss
from torchvision.models.vgg import cfgs, make_layers

import lesionforge as lf
from lesionforge_zoo.pix2pixhd.config import GeneratorShape
from lesionforge_zoo.pix2pixhd.network import Discriminators, build_generator, draw_weights
from lesionforge_zoo.pix2pixhd.perceptual import PerceptualLoss
from lesionforge_zoo.pix2pixhd.players import (
    Players,
    adversarial_loss,
    discriminator_loss,
    feature_matching_loss,
)

SHAPE = GeneratorShape(size=16, width=4, downsamplings=1, blocks=1, enhancer=False)


@pytest.fixture
def players() -> Players:
    torch.manual_seed(0)
    made = Players(
        build_generator(SHAPE, 0), Discriminators(4, count=2, width=4, halvings=2), feature_matching_weight=10.0
    )
    draw_weights(made)
    return made.double()


@pytest.fixture
def case() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    masks = torch.rand(3, 1, 16, 16, generator=rng, dtype=torch.float64) > 0.5
    return masks.double(), torch.rand(3, 3, 16, 16, generator=rng, dtype=torch.float64) * 2 - 1


def judgements(seed: int) -> list[list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(seed)
    shapes = [[(2, 4, 8, 8), (2, 8, 4, 4), (2, 1, 3, 3)], [(2, 4, 4, 4), (2, 8, 2, 2), (2, 1, 2, 2)]]
    return [[torch.randn(shape, generator=rng) for shape in scale] for scale in shapes]


def test_losses_are_the_equations():
    real, made = judgements(1), judgements(2)
    numbers = [[[layer.numpy().astype(float) for layer in scale] for scale in judged] for judged in (real, made)]
    against = sum(np.mean((m[-1] - 1) ** 2) for m in numbers[1])
    assert adversarial_loss(made).item() == pytest.approx(against, rel=1e-5)
    pairs = list(zip(*numbers, strict=True))
    divided = sum(np.mean((r[-1] - 1) ** 2) / 2 + np.mean(m[-1] ** 2) / 2 for r, m in pairs)
    assert discriminator_loss(real, made).item() == pytest.approx(divided, rel=1e-5)
    matched = sum(np.abs(r[layer] - m[layer]).sum() / r[layer].size for r, m in pairs for layer in range(2))
    assert feature_matching_loss(real, made).item() == pytest.approx(matched, rel=1e-5)


def separate_gradients(players: Players, condition: torch.Tensor, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The gradient of each player's loss by its own weights, from graphs that share nothing."""
    generator, discriminators = players.generator, players.discriminators
    made, real = generator(condition), discriminators(condition, images)
    seen = discriminators(condition, made)
    theirs = adversarial_loss(seen) + 10.0 * feature_matching_loss(real, seen)
    found = gradients(theirs, generator, "generator")
    with torch.no_grad():
        made = generator(condition)
    others = discriminator_loss(discriminators(condition, images), discriminators(condition, made))
    return found | gradients(others, discriminators, "discriminators")


def gradients(loss: torch.Tensor, network: nn.Module, prefix: str) -> dict[str, torch.Tensor]:
    names, weights = zip(*network.named_parameters(prefix), strict=True)
    return dict(zip(names, torch.autograd.grad(loss, weights), strict=True))


def test_each_player_gets_the_gradient_of_its_own_loss_alone(players, case):
    expected = separate_gradients(players, *case)
    terms = players(*case)
    terms["loss"].backward()
    for name, weight in players.named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=1e-6, atol=1e-12)
    parts = terms["adversarial_loss"] + 10 * terms["feature_matching_loss"] + terms["discriminator_loss"]
    assert terms["loss"].item() == pytest.approx(parts.item(), rel=1e-6)


def test_one_step_of_one_adam_is_one_step_of_each_players_own(players, case):
    apart = copy.deepcopy(players)
    optimizers = [torch.optim.Adam(part.parameters(), 1e-2) for part in (apart.generator, apart.discriminators)]
    together = torch.optim.Adam(players.parameters(), 1e-2)
    for _ in range(3):
        found = separate_gradients(apart, *case)
        for name, weight in apart.named_parameters():
            weight.grad = found[name]
        for optimizer in optimizers:
            optimizer.step()
        together.zero_grad()
        players(*case)["loss"].backward()
        together.step()
    for one, other in zip(players.parameters(), apart.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory) -> tuple[nn.Sequential, str]:
    """Layers of torchvision's VGG-19 with random weights, and the file of them."""
    torch.manual_seed(0)
    features = make_layers(cfgs["E"], batch_norm=False)
    file = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, file)
    return features, file


def test_the_perceptual_loss_is_that_of_torchvisions_layers(vgg):
    layers, file = vgg
    torch.manual_seed(1)
    made, real = torch.rand(2, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    made.requires_grad_(True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected, pair = 0.0, [((images + 1) / 2 - mean) / std for images in (made, real)]
    weights = {1: 1 / 32, 6: 1 / 16, 11: 1 / 8, 20: 1 / 4, 29: 1.0}
    with torch.no_grad():
        for number, layer in enumerate(layers[:30]):
            pair = [layer(features) for features in pair]
            expected += weights.get(number, 0.0) * l1_loss(*pair).item()
    loss = PerceptualLoss(file)(made, real)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert PerceptualLoss(file)(real, real).item() == 0


def test_the_perceptual_loss_is_weighed_and_never_learns(vgg, case):
    perceptual = PerceptualLoss(vgg[1])
    generator, discriminators = build_generator(SHAPE, 0), Discriminators(4, count=2, width=4, halvings=2)
    game = Players(generator, discriminators, feature_matching_weight=0.0, perceptual=perceptual, perceptual_weight=7.0)
    terms = game(*(tensor.float() for tensor in case))
    rest = terms["loss"] - terms["adversarial_loss"] - terms["discriminator_loss"]
    assert rest.item() == pytest.approx(7 * terms["perceptual_loss"].item(), rel=1e-4)
    terms["loss"].backward()
    assert all(weight.grad is None for weight in perceptual.parameters())


def test_weights_of_the_perceptual_loss_that_cannot_be_used_are_an_error(tmp_path):
    with pytest.raises(lf.CheckpointError, match=r"perceptual_weights: there is no file .*none\.pth"):
        PerceptualLoss(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("no weights")
    with pytest.raises(lf.CheckpointError, match=r"text\.pth cannot be read"):
        PerceptualLoss(tmp_path / "text.pth")
    torch.save({"layer1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(lf.CheckpointError, match=r"other\.pth holds no VGG-19 .*features\.0\.weight"):
        PerceptualLoss(tmp_path / "other.pth")
