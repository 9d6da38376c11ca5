"""Benches of convnets: which layers a net has, what a layer's case checks, what the table marks."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from pyops.testing.models import resnet


def test_layers_of_resnet50(load: Any) -> None:
    with torch.device("meta"):
        model, x = resnet.ResNet(50).eval(), torch.empty(1, 3, 224, 224)
        layers = load("conv_layers").layers_of(model, x)
    assert sum(layers.values()) == 53
    assert sum(layer.macs * count for layer, count in layers.items()) == 4_087_136_256
    names = {layer.name: count for layer, count in layers.items()}
    assert names["1x3x224x224-64_7x7/2+relu"] == 1
    assert names["1x256x14x14-1024_1x1+add+relu"] == 6
    assert names["1x256x56x56-512_1x1/2"] == 1, "a projection: the other one takes the sum"
    assert sum(count for layer, count in layers.items() if layer.residual) == 16


def test_epilogues_end_where_a_value_is_read_twice(load: Any) -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(4, 4, 3, padding=1, groups=4)
            self.second = nn.Conv2d(4, 4, (1, 3), dilation=2)
            self.act = nn.ReLU6()

        def forward(self, x: Tensor) -> Tensor:
            a = self.first(x)
            return self.act(self.second(a)).sum() + a.sum()

    first, second = load("conv_layers").layers_of(Forked().eval(), torch.zeros(2, 4, 9, 9))
    assert (first.activation, second.activation) == ("none", "relu6")
    assert (first.groups, first.out_shape) == (4, (2, 4, 9, 9))
    assert second.out_shape == (2, 4, 9, 5)
    assert second.macs == 2 * 4 * 9 * 5 * 4 * 3


def tiny(load: Any) -> list[Any]:
    return list(load("ops.int8_conv_relu").cases("tiny"))


def test_a_layers_reference_is_its_contract(load: Any) -> None:
    for case in tiny(load):
        result = case.make_ours()()
        case.check_ours(result)
        assert result.shape == case.layer.out_shape
        assert 0 < result.double().std()
        wrong = result.clone()
        wrong[0, 1, 2, 1] ^= 4
        with pytest.raises(load("case").WrongResultError, match="differs in 1 of"):
            case.check_ours(wrong)
        with pytest.raises(load("case").WrongResultError, match="is up to 4 steps off"):
            case.check_peer(wrong)


def test_peers_compute_the_layer(load: Any) -> None:
    computed = set()
    unavailable = load("case").UnavailableError
    for case in tiny(load):
        for peer in load("measure").peers_for(case, slow=True):
            try:
                call = peer.make(case)
            except unavailable:
                continue
            case.check_peer(call())
            computed.add(peer.NAME)
    assert "torch fp32" in computed


def test_the_table_of_layers_marks_what_loses(load: Any) -> None:
    layers, measure = load("layers"), load("measure")
    first, second, third = (case.layer for case in tiny(load))
    counts = {first: 2, second: 1, third: 1}
    name = lambda layer: f"int8_conv_relu {layer.name}"  # noqa: E731
    row = lambda layer, who, us, **more: measure.Row(  # noqa: E731
        name(layer), who, 2, median_us=us, **more
    )
    rows = [
        row(first, "pyops", 10.0, peak_share=0.9),
        row(first, "torch fp32", 30.0),
        row(first, "pyops fp32", 12.0),
        row(second, "pyops", 50.0, peak_share=0.4),
        row(second, "torch fp32", 40.0),
        row(third, "torch fp32", 5.0),
        measure.Row(name(third), "pyops", 2, reason="absent"),
    ]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(layers.table("net batch 1", counts, rows))
    lines = console.export_text().splitlines()
    line = {layer: next(text for text in lines if layer.name in text) for layer in counts}
    assert "20.0" in line[first]
    assert "24.0" in line[first]
    assert "29%" in line[first]
    assert "SLOWER" not in line[first]
    assert "SLOWER than fp32, below 60% of peak" in line[second]
    assert "5.0" in line[third]


def test_a_nets_cases_are_checked_against_fp32(load: Any) -> None:
    int8, bf16, fp32, *_ = load("models.resnet18").cases("tiny")
    assert [case.kind for case in (int8, bf16, fp32)] == [
        "convnet int8",
        "convnet bf16",
        "convnet fp32",
    ]
    exact = load("peers.torch_fp32").make(fp32)()
    fp32.check_ours(exact)
    assert fp32.quality(exact)["top-1 agrees"] == 1
    half = load("peers.torch_bf16").make(bf16)().float()
    bf16.check_ours(half)
    with pytest.raises(load("case").WrongResultError, match=r"SQNR is .* dB, expected at least 60"):
        fp32.check_ours(half)
    assert len(int8.calibration()) == load("convnets").CALIBRATION_IMAGES
    assert not torch.equal(int8.calibration()[0][0], int8.inputs[0])


def test_layers_of_a_net_are_a_bench(load: Any) -> None:
    convnets = load("convnets")
    net = dataclasses.replace(load("models.resnet18").net(), tiny_size=32)
    assert isinstance(net, convnets.Net)
    bench = load("layers").Layers(net, (1,))
    cases = list(bench.cases("tiny"))
    assert len(cases) == len(bench.counts) == 15
    assert sum(bench.counts.values()) == 20
    assert {case.kind for case in cases} == {"static_conv"}
