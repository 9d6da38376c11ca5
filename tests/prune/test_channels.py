"""prune_channels: what becomes smaller, by how much, and what stays as it was."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

import pyops
from pyops.prune.channels import (
    channel_plan,
    prune_channels,
)
from pyops.testing.channels import (
    IMAGES,
    Residual,
    filled,
    with_zeros,
)
from pyops.testing.models import digits_cnn


def check(model, small, x):
    """The smaller model is the old one with zeros, which is not the old one."""
    with torch.no_grad():
        expected = with_zeros(model, channel_plan(small))(x)
        assert torch.allclose(small(x), expected, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(expected, model(x), rtol=1e-3)


def sizes(model):
    found = {}
    for name, m in model.named_modules():
        if isinstance(m, nn.Linear):
            found[name] = (m.in_features, m.out_features)
        elif isinstance(m, nn.Conv2d):
            found[name] = (m.in_channels, m.out_channels)
        elif isinstance(m, nn.BatchNorm2d):
            found[name] = m.num_features
    return found


def test_layers_become_smaller_and_the_rest_stays():
    model = filled(Residual()).train()
    model.inner.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    small = prune_channels(model, 0.5, example_inputs=IMAGES, round_to=16)
    assert sizes(small) == {
        "stem": (3, 16),
        "bn0": 16,
        "inner": (16, 32),
        "bn1": 32,
        "outer": (32, 16),
        "bn2": 16,
        "fc": (16, 5),
    }
    assert type(small) is Residual
    assert small.training
    assert list(small.state_dict()) == list(before)
    assert all(map(torch.equal, model.state_dict().values(), before.values()))
    assert [p.requires_grad for p in small.parameters()] == [
        p.requires_grad for p in model.parameters()
    ]
    shared = {t.data_ptr() for t in model.state_dict().values()}
    assert not shared & {t.data_ptr() for t in small.state_dict().values()}
    check(model.eval(), small.eval(), IMAGES)


def test_what_stays_has_the_largest_norms():
    model = filled(Residual())
    small = prune_channels(model, 1 / 3, example_inputs=IMAGES, include="inner", round_to=1)
    weights = model.inner.weight.abs().sum((1, 2, 3)) + model.outer.weight.abs().sum((0, 2, 3))
    expected = weights.topk(32).indices.sort().values
    assert channel_plan(small)["layers"]["inner"]["out"]["kept"] == expected.tolist()
    assert torch.equal(small.inner.weight, model.inner.weight[expected])
    assert torch.equal(small.outer.weight, model.outer.weight[:, expected])
    assert torch.equal(small.bn1.running_var, model.bn1.running_var[expected])


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        ("l2", lambda m: m.inner.weight.square().sum((1, 2, 3)) + _squares(m)),
        ("bn", lambda m: m.bn1.weight.abs()),
    ],
)
def test_criteria(criterion, expected):
    model = filled(Residual())
    kept = expected(model).topk(36).indices.sort().values.tolist()
    options = {"include": "inner", "round_to": 1, "criterion": criterion}
    small = prune_channels(model, 0.25, example_inputs=IMAGES, **options)
    assert channel_plan(small)["layers"]["bn1"]["out"]["kept"] == kept


def _squares(model):
    return model.outer.weight.square().sum((0, 2, 3))


def test_random_channels_follow_the_generator():
    def kept(seed):
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        small = prune_channels(
            model, 0.5, example_inputs=IMAGES, criterion="random", generator=generator
        )
        return channel_plan(small)["layers"]

    model = filled(Residual())
    assert kept(None) == kept(0) == kept(0)
    assert kept(0) != kept(1)


def test_groups_without_a_norm_have_no_score_by_norms():
    model = digits_cnn.DigitsCNN()
    with pytest.raises(ValueError, match=r"fc_layers\.0 \(256 channels\): nothing in it has a"):
        prune_channels(model, 0.5, criterion="bn", example_inputs=torch.randn(1, 1, 28, 28))


def test_global_scope_removes_where_scores_are_low():
    model = filled(Residual(width=64))
    with torch.no_grad():  # most channels of one group are worth next to nothing
        model.inner.weight[8:] *= 1e-3
        model.outer.weight[:, 8:] *= 1e-3
    small = prune_channels(model, 0.3, scope="global", example_inputs=IMAGES, round_to=1)
    found = sizes(small)
    assert found["inner"][1] == 48 - round(0.3 * (48 + 64))
    assert found["stem"] == (3, 64)
    least = prune_channels(model, 0.3, scope="global", example_inputs=IMAGES, round_to=1, least=20)
    assert sizes(least)["inner"][1] == 20
    assert sizes(least)["stem"][1] == 64 - (round(0.3 * 112) - 28)
    check(model, least, IMAGES)


@pytest.mark.parametrize(
    ("width", "sparsity", "round_to", "least", "stays", "note"),
    [
        (32, 0.3, 8, 1, 24, "24 stay and not 22: multiples of 8"),
        (32, 0.5, 8, 1, 16, ""),
        (20, 0.6, 8, 1, 8, ""),
        (20, 0.4, 8, 1, 16, "16 stay and not 12: multiples of 8"),
        (20, 0.25, 8, 1, 16, "16 stay and not 15: multiples of 8"),
        (7, 0.5, 8, 1, 4, "4 stay and not 3: multiples of 4"),
        (7, 0.5, 1, 1, 3, ""),
        (32, 0.99, 1, 4, 4, "4 stay and not 0: multiples of 1, least=4"),
        (32, 0.9, 16, 1, 16, "16 stay and not 3: multiples of 16"),
        (3, 0.5, 16, 1, 2, "2 stay and not 1: multiples of 2"),
        (64, 0.3, None, 1, 32, "32 stay and not 45: multiples of 32"),
        (96, 0.3, None, 1, 64, "64 stay and not 67: multiples of 32"),
        (48, 0.3, None, 1, 32, "32 stay and not 34: multiples of 32"),
        (31, 0.3, None, 1, 16, "16 stay and not 22: multiples of 16"),
        (12, 0.4, None, 1, 8, "8 stay and not 7: multiples of 8"),
    ],
)
def test_rounding(width, sparsity, round_to, least, stays, note):
    model = filled(nn.Sequential(nn.Conv2d(3, width, 1), nn.ReLU(), nn.Conv2d(width, 4, 1)))
    options = {"round_to": round_to, "least": least}
    small = prune_channels(model, sparsity, example_inputs=IMAGES, **options)
    assert small[0].out_channels == small[2].in_channels == stays
    (row,) = [row for row in channel_plan(small)["groups"] if row["layers"] == ["0"]]
    assert row == {"layers": ["0"], "before": width, "after": stays, "note": note}
    check(model, small, IMAGES)


def test_include_and_exclude():
    model = filled(Residual())
    some = prune_channels(model, 0.5, example_inputs=IMAGES, include=["inner", "fc"])
    assert sizes(some) == {**sizes(model), "inner": (32, 32), "bn1": 32, "outer": (32, 32)}
    others = prune_channels(model, 0.5, example_inputs=IMAGES, exclude="outer")
    assert sizes(others) == sizes(some)
    rows = {row["layers"][0]: row["note"] for row in channel_plan(others)["groups"]}
    assert rows["stem"] == "excluded (exclude=)"
    assert rows["fc"] == "they are the model's output"


def test_inplace_cuts_the_model_itself():
    model = filled(Residual())
    expected = prune_channels(model, 0.5, example_inputs=IMAGES)
    again = prune_channels(model, 0.5, example_inputs=IMAGES, inplace=True)
    assert again is model
    assert all(map(torch.equal, model.state_dict().values(), expected.state_dict().values()))
    assert channel_plan(model) == channel_plan(expected)


def test_the_layout_of_weights_stays():
    model = filled(Residual()).to(memory_format=torch.channels_last)
    small = prune_channels(model, 0.5, example_inputs=IMAGES)
    last = torch.channels_last
    assert small.inner.weight.is_contiguous(memory_format=last)
    assert not small.inner.weight.is_contiguous()


def test_noise_stands_in_for_an_example():
    model = digits_cnn.DigitsCNN()
    small = prune_channels(model, 0.5)
    assert small.fc_layers[0].in_features == 64 * 9
    assert small(torch.randn(2, 1, 28, 28)).shape == (2, 10)


def test_a_smaller_model_can_be_trained_fused_and_quantized():
    model = Residual().eval()
    small = prune_channels(model, 0.5, example_inputs=IMAGES.float(), round_to=16)
    optimizer = torch.optim.SGD(small.parameters(), 0.1, momentum=0.9)
    small.train()(IMAGES.float()).square().sum().backward()
    optimizer.step()
    small.eval()
    fused = pyops.fuse(small, example_inputs=IMAGES.float())
    with torch.inference_mode():
        assert torch.allclose(fused(IMAGES.float()), small(IMAGES.float()), atol=1e-4)
    assert pyops.explain(pyops.quantize(small, calibration=[IMAGES.float()])).rows
    rows = {row.name: row.reason for row in pyops.explain(small).rows}
    assert rows["inner"].startswith("channels pruned: inputs 32 -> 16, outputs 48 -> 32; multiply")
    assert rows["fc"] == "channels pruned: inputs 32 -> 16; multiply-accumulates 320 -> 160"


def test_ten_groups_are_named_where_none_can_be_pruned():
    many = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(12)))
    with pytest.raises(ValueError, match=r"0 \(3 channels\)") as found:
        prune_channels(many, 0.5, example_inputs=IMAGES.float(), exclude="*")
    assert str(found.value).splitlines()[-1] == "  ... and 2 more"
