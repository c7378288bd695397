from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import lesionforge as lf
from lesionforge.testing import assert_contract, contract_rules, disc_dataset
from lesionforge_zoo.segmentation.plugin import DcsauNet, DffUNet, MefpNet, XBoundFormer

TINY = {
    "dff-unet": DffUNet(DffUNet.Config(width=4, depth=3)),
    "dcsau-net": DcsauNet(DcsauNet.Config(width=8)),
    "mefp-net": MefpNet(MefpNet.Config(width=8, depth=3)),
    "xbound-former": XBoundFormer(
        XBoundFormer.Config(encoder="pvt_v2_b0", channels=16, heads=4, im_blocks=1, ex_blocks=1)
    ),
}
EXPRESSIONS = (
    "dff-unet(width=4, depth=3)",
    "dcsau-net(width=8)",
    "mefp-net(width=8, depth=3)",
    'xbound-former(encoder="pvt_v2_b0", channels=16, heads=4, im_blocks=1, ex_blocks=1)',
)
RULES = [
    pytest.param(rule, id=f"{expression}: {rule.name}")
    for expression in EXPRESSIONS
    for rule in contract_rules(expression, role="architecture")
]
# Our count, and in millions what a paper prints or its published code has.
COUNTS = [
    (DffUNet, 192_149, 0.19),
    (DcsauNet, 2_597_953, 2.60),
    (XBoundFormer, 28_130_576, None),
    (MefpNet, 7_193_773, None),
]


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("rule", RULES)
def test_contract(rule):
    rule.check()


@pytest.mark.parametrize(
    ("architecture", "expected", "printed"), COUNTS, ids=lambda value: getattr(value, "name", None)
)
def test_parameters_are_counted(architecture, expected, printed):
    count = sum(parameter.numel() for parameter in architecture().build().parameters())
    print(f"{architecture.name}: {count:,} parameters, {printed or 'no'} million elsewhere")
    assert count == expected
    assert printed is None or round(count / 1e6, 2) == printed


@pytest.mark.parametrize("name", TINY)
def test_learns_four_discs_by_heart(name):
    batch = disc_dataset(4, 64).fetch(range(4), masks=True)
    images, masks = (batch.images - 0.5) / 0.25, batch.masks
    torch.manual_seed(0)
    network = TINY[name].build()
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    total = getattr(network, "training_loss", lambda outputs, truth, loss: loss(outputs, truth))
    for _ in range(40):
        optimizer.zero_grad()
        total(network(images), masks, F.binary_cross_entropy_with_logits).backward()
        optimizer.step()
    # In training mode's batch statistics: after so few steps the running ones are not settled.
    with torch.no_grad():
        outputs = network(images)
    found = (outputs if isinstance(outputs, torch.Tensor) else outputs.masks)[:, :1] > 0
    dice = 2 * (found * masks).sum() / (found.sum() + masks.sum())
    assert dice > 0.9


@pytest.mark.parametrize("expression", [EXPRESSIONS[0], EXPRESSIONS[-1]])
def test_trains_and_resumes_by_name(expression):
    architecture = expression.replace('"', '\\"')
    settings = "size=32, batch_size=4, steps=3, checkpoint_every=1"
    assert_contract(f'segmentation(architecture="{architecture}", {settings})', role="trainer")


def test_dcsau_net_has_the_channels_of_its_paper():
    with torch.device("meta"):
        maps = DcsauNet().build().encode(torch.empty(2, 3, 32, 32))
    assert [tuple(features.shape[1:]) for features in maps] == [
        (64, 32, 32),
        (128, 16, 16),
        (256, 8, 8),
        (512, 4, 4),
        (512, 2, 2),
    ]


def test_attention_heads_must_divide_the_channels():
    with pytest.raises(lf.ConfigError, match="xbound-former: channels = 32 must be a multiple of heads = 3"):
        contract_rules("xbound-former(channels=32, heads=3)", role="architecture")
