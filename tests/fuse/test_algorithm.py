"""Which convolutions ``fuse`` gives to Winograd's algorithm, and what becomes of the net."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyops
from pyops.nn import FusedConv2d
from pyops.nn.fused_conv2d import algorithm_for
from pyops.nn.packed_float_conv import PackedFloatConv
from pyops.ops.conv_relu_packing import ALGORITHMS, read_header
from pyops.testing.compare import sqnr_db
from pyops.testing.models import resnet

CONV = {"kernel_size": 3, "padding": 1}


@pytest.mark.parametrize(
    ("layer", "dtype", "expected"),
    [
        (nn.Conv2d(32, 32, **CONV), None, "winograd"),
        (nn.Conv2d(31, 32, **CONV), None, "direct"),
        (nn.Conv2d(32, 31, **CONV), None, "direct"),
        (nn.Conv2d(32, 32, **CONV), torch.bfloat16, "direct"),
        (nn.Conv2d(32, 32, **CONV).bfloat16(), None, "direct"),
        (nn.Conv2d(32, 32, **CONV).bfloat16(), torch.float32, "winograd"),
        (nn.Conv2d(32, 32, stride=(1, 2), **CONV), None, "direct"),
        (nn.Conv2d(32, 32, dilation=(2, 1), **CONV), None, "direct"),
        (nn.Conv2d(64, 64, groups=2, **CONV), None, "direct"),
        (nn.Conv2d(32, 32, (3, 5)), None, "direct"),
        (nn.Conv1d(32, 32, 3), None, "direct"),
        (nn.Linear(32, 32), None, "direct"),
    ],
)
def test_the_choice(layer, dtype, expected):
    assert algorithm_for(layer, dtype) == expected
    (fused,) = pyops.fuse(nn.Sequential(layer), dtype=dtype)
    header = read_header(fused.packed.get())
    assert ALGORITHMS[header.algorithm] == expected
    assert ("Winograd" in pyops.explain(fused).rows[0].reason) == (expected == "winograd")


def test_a_net_by_either_algorithm():
    model, x = resnet.random_model(18), torch.randn(2, 3, 64, 64)
    fast, direct = pyops.fuse(model), pyops.fuse(model, algorithm="direct")
    remarks = ["Winograd" in row.reason for row in pyops.explain(fast).rows]
    assert sum(remarks) == 13  # of 16 with 3 x 3 taps, 3 have stride 2
    assert not any("Winograd" in row.reason for row in pyops.explain(direct).rows)
    with torch.inference_mode():
        expected = model.double()(x.double())
        assert sqnr_db(fast(x).double(), expected) > 100
        assert sqnr_db(direct(x).double(), expected) > 100
        assert not torch.equal(fast(x), direct(x))


def test_a_weight_that_two_strides_share():
    first, second = nn.Conv2d(32, 32, **CONV), nn.Conv2d(32, 32, stride=2, **CONV)
    second.weight = first.weight
    model, x = nn.Sequential(first, second).eval(), torch.randn(1, 32, 12, 12)
    fused = pyops.fuse(model)
    assert [layer.packed.algorithm for layer in fused] == ["winograd", "direct"]
    rows = pyops.explain(fused).rows
    assert sum(row.bytes_before for row in rows) == 4 * (32 * 32 * 9 + 32 + 32)
    with torch.inference_mode():
        assert sqnr_db(fused(x), model(x)) > 100


def test_layers_that_stay_torchs_are_not_asked():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.LazyConv2d(8, 3))
    assert type(pyops.fuse(model)[1]) is nn.LazyConv2d


def test_a_layer_by_itself():
    layer, x = nn.Conv2d(32, 40, **CONV), torch.randn(1, 32, 12, 12)
    with torch.inference_mode():
        for algorithm in ("auto", *ALGORITHMS):
            fused = FusedConv2d.from_float(layer, algorithm=algorithm)
            assert sqnr_db(fused(x), layer(x)) > 100


def test_what_the_algorithm_does_not_take_is_refused():
    takes = r"Winograd's algorithm takes a weight \[OC, C, 3, 3\] of 1 group, but weight is "
    for dtype in (torch.float32, torch.bfloat16):
        with pytest.raises(ValueError, match=r"^PackedFloatConv: algorithm must be one of"):
            PackedFloatConv(torch.zeros(4, 4, 3, 3, dtype=dtype), 1, "fft")
        with pytest.raises(ValueError, match=rf"^PackedFloatConv: {takes}\[4, 4, 3, 3\] of 2$"):
            PackedFloatConv(torch.zeros(4, 4, 3, 3, dtype=dtype), 2, "winograd")
    packed = PackedFloatConv(torch.ones(4, 4, 3, 3), 1, "winograd")
    with pytest.raises(ValueError, match=rf"^PackedFloatConv: {takes}\[4, 4, 1, 1\] of 1$"):
        packed.assign(torch.zeros(4, 4, 1, 1))
    assert torch.equal(packed.unpack(), torch.ones(4, 4, 3, 3))  # as it was
    packed = PackedFloatConv(torch.ones(4, 2, 3, 3), 2)
    with pytest.raises(RuntimeError, match="groups must divide the 3 output channels, but is 2"):
        packed.assign(torch.zeros(3, 2, 1, 1))
    assert torch.equal(packed.unpack(), torch.ones(4, 2, 3, 3))
    with pytest.raises(ValueError, match=r"takes stride 1 and dilation 1, but stride is \[2, 2\]"):
        FusedConv2d.from_float(nn.Conv2d(4, 4, 3, stride=2), algorithm="winograd")


def test_a_config_of_another_kind_is_refused():
    for config in (
        {"groups": 1},
        {"groups": 0, "algorithm": "direct"},
        {"groups": 1, "algorithm": "fft"},
        {"groups": 1, "algorithm": ["direct"]},
        {"groups": True, "algorithm": "direct"},
    ):
        with pytest.raises(ValueError, match=r"takes groups and algorithm \(of \('direct',"):
            PackedFloatConv.shapes(4, 4, config)
