"""Fused nets: saved, copied, pickled, cast, compiled, exported; what their layers refuse."""

from __future__ import annotations

import copy
import io
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops.graph.net_calls import float_conv
from pyops.graph.net_float import FloatForward
from pyops.graph.net_forward import net_of
from pyops.testing.compare import sqnr_db


class Net(nn.Module):
    """A sum, Winograd's algorithm (``same``), depthwise, a slope of its own and a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32)
        self.same, self.bn2 = nn.Conv2d(32, 32, 3, padding="same"), nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32)
        self.prelu, self.bn3, self.fc = nn.PReLU(32), nn.BatchNorm2d(64), nn.Linear(64, 5)

    def forward(self, x):
        x = F.relu(self.bn(self.stem(x)))
        y = self.prelu(self.depthwise(F.relu(self.bn2(self.same(x)) + x)))
        return self.fc(self.bn3(torch.cat([x, y], 1)).mean((2, 3)))


def run(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model(x)


def winograd_layers(fused: nn.Module) -> list[str]:
    return [row.name for row in pyops.explain(fused).rows if "Winograd" in row.reason]


IMAGE = (2, 3, 20, 18)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_save_copy_and_pickle(settle, dtype, tmp_path):
    model, x = settle(Net()), torch.randn(IMAGE)
    fused = pyops.fuse(model, dtype=dtype)
    expected = run(fused, x)
    pyops.save(fused, tmp_path / "m.safetensors")
    buffer = io.BytesIO()
    torch.save(fused, buffer)
    buffer.seek(0)
    for other in (
        pyops.load(tmp_path / "m.safetensors", Net()),
        pyops.load(tmp_path / "m.safetensors", Net().to("meta")),
        copy.deepcopy(fused),
        pickle.loads(pickle.dumps(fused)),
        torch.load(buffer, weights_only=False),
    ):
        assert torch.equal(run(other, x), expected)
        assert net_of(other).plan == net_of(fused).plan
        assert pyops.explain(other).to_json() == pyops.explain(fused).to_json()
        assert net_of(other).owner is other


def test_state_dict_round_trip(settle):
    model, x = settle(Net()), torch.randn(IMAGE)
    fused, other = pyops.fuse(model), pyops.fuse(settle(Net()))
    with torch.no_grad():
        other.load_state_dict({k: v + 1 for k, v in fused.state_dict().items()})
        assert not torch.equal(run(other, x), run(fused, x))
    other.load_state_dict(fused.state_dict())
    assert torch.equal(run(other, x), run(fused, x))
    assert fused.state_dict()["stem.weight"].shape == (32, 3, 3, 3)
    wrong = fused.state_dict() | {"stem.weight": torch.zeros(32, 3, 3, 4)}
    with pytest.raises(RuntimeError) as error:
        other.load_state_dict(wrong)
    found = "size mismatch for stem.weight: the file has [32, 3, 3, 4]"
    assert f"{found}, the layer expects [32, 3, 3, 3]" in str(error.value)


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_compile_and_export(settle, dtype):
    fused, x = pyops.fuse(settle(Net()), dtype=dtype), torch.randn(IMAGE)
    with torch.no_grad():
        expected = fused(x)
        compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-5)
        exported = torch.export.export(fused, (x,)).module()
        torch.testing.assert_close(exported(x), expected, rtol=1e-5, atol=1e-5)


def test_another_level_packs_again(settle):
    fused, x = pyops.fuse(settle(Net())), torch.randn(IMAGE)
    expected = run(fused, x)
    with pyops.isa.force("generic"):
        assert sqnr_db(run(fused, x), expected) > 100
        rows = pyops.explain(fused).rows
        assert {row.isa for row in rows if row.kernel} == {"generic"}
    assert torch.equal(run(fused, x), expected)


def test_autocast_runs_the_layers_one_by_one(settle):
    model, x = settle(Net()), torch.randn(IMAGE)
    fused = pyops.fuse(model)
    with torch.autocast("cpu", torch.bfloat16):
        y = run(fused.stem, x)
        assert y.dtype == torch.bfloat16
    folded = F.conv2d(x, fused.stem.weight, fused.stem.bias, 2, 1)
    assert torch.equal(y, folded.bfloat16()) or sqnr_db(y.float(), folded) > 45


def test_a_cast_after_fusing_casts_the_weights(settle):
    model, x = settle(Net()), torch.randn(IMAGE)
    fused = pyops.fuse(model)
    assert winograd_layers(fused) == ["same"]
    fused.to(torch.bfloat16)
    assert winograd_layers(fused) == []
    assert fused.same.weight.dtype == torch.bfloat16
    y = run(fused, x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert sqnr_db(y.float(), run(model, x)) > 18
    assert winograd_layers(fused.float()) == ["same"]
    assert sqnr_db(run(fused, x), run(model, x)) > 18


def test_bfloat16_casts_inputs_once_and_returns_their_dtype(settle):
    model, x = settle(Net()), torch.randn(IMAGE)
    fused = pyops.fuse(model, dtype=torch.bfloat16)
    assert {p.dtype for p in fused.parameters()} == {torch.bfloat16}
    assert fused.stem.weight.dtype == torch.bfloat16
    y = run(fused, x)
    assert y.dtype == torch.float32
    assert torch.equal(run(fused, x.bfloat16()).float(), y)  # the same values inside
    assert run(fused, x.bfloat16()).dtype == torch.bfloat16
    assert 18 < sqnr_db(y, run(model, x)) < 80  # bf16 indeed
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    fused.float()
    assert fused.stem.weight.dtype == torch.float32
    assert run(fused, x).dtype == torch.float32


def test_inplace(settle):
    model, x = settle(Net()), torch.randn(IMAGE)
    expected = run(model, x)
    assert pyops.fuse(model, inplace=True) is model
    assert sqnr_db(run(model, x), expected) > 100
    assert isinstance(model.__dict__["forward"], FloatForward)


def test_gradients_and_train_mode_are_refused(settle):
    fused, x = pyops.fuse(settle(Net())), torch.randn(IMAGE)
    with pytest.raises(RuntimeError) as error:
        fused(x.requires_grad_())
    grad = (
        " has no gradient but its input requires grad: run under torch.inference_mode() or "
        "torch.no_grad(), or detach the input"
    )
    assert str(error.value) == f"this net{grad}"
    with pytest.raises(RuntimeError) as error:
        fused.stem(x)
    assert str(error.value) == f"FusedConv2d{grad}"
    with pytest.raises(RuntimeError) as error:
        run(fused.train(), x)
    assert str(error.value) == (
        "FusedConv2d is for inference but it is in train mode: call model.eval(), or train the "
        "float model and fuse it afterwards"
    )
    layer = fused.eval().same
    with pytest.raises(RuntimeError) as error:
        float_conv(
            layer,
            torch.randn(1, 16, 4, 4),
            torch.randn(1, 16, 4, 4, requires_grad=True),
            (0,) * 3,
            None,
        )
    assert str(error.value) == f"FusedConv2d{grad}"


def test_another_dtype_is_refused(settle):
    layer = pyops.fuse(settle(Net())).stem
    with pytest.raises(TypeError) as error:
        run(layer, torch.randn(IMAGE, dtype=torch.float16))
    assert str(error.value) == (
        "FusedConv2d has a weight of torch.float32, so its input must be of that dtype, "
        "but is torch.float16"
    )


def test_fusing_twice_is_refused(settle):
    fused = pyops.fuse(settle(Net()))
    for workflow in (pyops.fuse, pyops.quantize):
        with pytest.raises(ValueError, match=r"^stem is a FusedConv2d already$"):
            workflow(fused)
