"""fuse: what stays torch's, models that cannot be traced, and refusals with whole messages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import pyops
from pyops.graph.net_forward import net_of, why_not_traced
from pyops.nn import FusedConv2d
from pyops.testing.compare import sqnr_db


class Branching(nn.Module):
    """Cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, x):
        y = self.body(x)
        return y if bool(y.sum() > 0) else -y


def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


class Own(nn.Conv2d):
    def forward(self, x):
        return super().forward(x) * 2


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = Own(3, 4, 3)
        self.reflect = nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect")
        self.plain = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        return self.plain(self.reflect(self.own(x)))


def test_what_has_no_kernel_stays_torchs(settle):
    model, x = settle(Mixed()), torch.randn(1, 3, 9, 9)
    fused = pyops.fuse(model)
    assert [type(m) for m in fused.children()] == [Own, nn.Conv2d, FusedConv2d]
    assert sqnr_db(run(fused, x), run(model, x)) > 100
    rows = {row.name: row.reason for row in pyops.explain(fused).rows}
    assert rows == {
        "own": "Own is a subclass of Conv2d with its own forward (exact types only)",
        "reflect": "padding_mode is 'reflect': kernels pad with zeros",
        "plain": "replaced",
    }


def test_a_model_that_cannot_be_traced_is_converted_layer_by_layer(settle):
    model, x = settle(Branching()), torch.randn(2, 3, 8, 8)
    fused = pyops.fuse(model, example_inputs=x)
    assert net_of(fused) is None
    assert why_not_traced(fused).startswith("each layer runs by itself: symbolically traced")
    assert repr(fused.body[1]) == "Folded(body.0)"
    assert sqnr_db(run(fused, x), run(model, x)) > 100
    blind = pyops.fuse(model)  # no size can be tried on the meta device: norms stay
    assert type(blind.body[1]) is nn.BatchNorm2d
    assert sqnr_db(run(blind, x), run(model, x)) > 100
    cast = pyops.fuse(model, dtype=torch.bfloat16)
    assert why_not_traced(cast).endswith("; its inputs must be bfloat16")
    assert run(cast, x.bfloat16()).dtype == torch.bfloat16


class Taps(Branching):
    """Looks at what is between a convolution and its norm."""

    def forward(self, x):
        y = self.body[0](x)
        z = self.body[1](y)
        return (y, z) if bool(y.sum() > 0) else (z, y)


def test_norms_are_not_folded_where_the_model_reads_between(settle):
    model, x = settle(Taps()), torch.randn(2, 3, 8, 8)
    fused = pyops.fuse(model, example_inputs=x)
    assert type(fused.body[1]) is nn.BatchNorm2d
    for found, expected in zip(run(fused, x), run(model, x), strict=True):
        assert sqnr_db(found, expected) > 100


def test_saving_layer_by_layer(settle, tmp_path):
    fused, x = pyops.fuse(settle(Branching()), example_inputs=torch.randn(1, 3, 8, 8)), None
    pyops.save(fused, tmp_path / "m.safetensors")
    other, x = pyops.load(tmp_path / "m.safetensors", Branching()), torch.randn(2, 3, 8, 8)
    assert torch.equal(run(other, x), run(fused, x))
    assert why_not_traced(other) == why_not_traced(fused)


@pytest.mark.parametrize(
    ("model", "options", "error", "message"),
    [
        (torch.zeros(1), {}, TypeError, "fuse takes an nn.Module, but got Tensor"),
        (
            nn.Sequential(nn.Bilinear(4, 4, 4)),
            {},
            ValueError,
            "fuse: nothing to replace in Sequential: no Conv1d, Conv2d or Linear",
        ),
        (
            Branching(),
            {"dtype": torch.float16},
            TypeError,
            "fuse: dtype must be torch.float32 or torch.bfloat16, but is torch.float16",
        ),
        (
            Branching(),
            {"algorithm": "winograd"},
            ValueError,
            "fuse: algorithm must be one of ('auto', 'direct', 'sparse'), but is 'winograd'",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1)).half(),
            {},
            ValueError,
            "fuse: nothing to replace in Sequential:\n"
            "  0: weight is torch.float16: give dtype= float32 or bfloat16",
        ),
        (
            Mixed(),
            {"strict": True},
            ValueError,
            "strict=True and 2 layer(s) would stay torch's:\n"
            "  own: Own is a subclass of Conv2d with its own forward (exact types only)\n"
            "  reflect: padding_mode is 'reflect': kernels pad with zeros",
        ),
        (
            nn.Conv2d(3, 4, 1),
            {"inplace": True},
            ValueError,
            "inplace=True cannot turn the Conv2d itself into another object: "
            "use the returned copy (inplace=False)",
        ),
        (
            nn.Sequential(nn.Conv2d(3, 4, 1)),
            {"example_inputs": torch.zeros(1, 2, 4, 4)},
            ValueError,
            "fuse: the model fails on example_inputs: RuntimeError: Given groups=1, weight of size "
            "[4, 3, 1, 1], expected input[1, 2, 4, 4] to have 3 channels, but got 2 channels "
            "instead",
        ),
    ],
)
def test_refusals(model, options, error, message):
    with pytest.raises(error) as found:
        pyops.fuse(model, **options)
    assert str(found.value) == message


def test_float16_can_become_bfloat16(settle):
    model = settle(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())).half()
    fused = pyops.fuse(model, dtype=torch.bfloat16)
    x = torch.randn(1, 3, 8, 8).half()
    assert run(fused, x).dtype == torch.float16
    assert sqnr_db(run(fused, x).float(), run(model.float(), x.float())) > 40


def test_a_layer_by_itself():
    layer, x = nn.Conv2d(3, 8, 3), torch.randn(1, 3, 8, 8)
    fused = pyops.fuse(layer)
    assert isinstance(fused, FusedConv2d)
    assert torch.allclose(run(fused, x), run(layer, x), atol=1e-5)
    assert why_not_traced(fused) == "each layer runs by itself: it is one layer"


def test_two_arguments_need_an_example(settle):
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 1)

        def forward(self, x, y):
            return self.conv(x) + y

    model = settle(Two())
    blind = pyops.fuse(model)
    assert why_not_traced(blind) == (
        "each layer runs by itself: it takes x, y: give example_inputs="
    )
    x, y = torch.randn(2, 3, 4, 4), torch.randn(2, 8, 4, 4)
    fused = pyops.fuse(model, example_inputs={"x": x, "y": y})
    assert net_of(fused).notes == {"conv": ["residual"]}
    with torch.inference_mode():
        assert torch.allclose(fused(x, y), model(x, y), atol=1e-5)
        assert torch.allclose(blind(x, y), model(x, y), atol=1e-5)


def test_tied_weights_stay_tied(settle):
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1))
    model[2].weight = model[0].weight
    model, x = settle(model), torch.randn(2, 4, 5, 5)
    fused = pyops.fuse(model)
    assert fused[0].packed is fused[2].packed
    assert type(fused[1]) is nn.BatchNorm2d
    assert sqnr_db(run(fused, x), run(model, x)) > 100
