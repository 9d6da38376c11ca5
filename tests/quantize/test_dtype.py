"""``quantize(dtype=)``: the dtype of everything around the int8 layers."""

import pytest
import torch
from torch import Tensor, nn

import pyops
from pyops.nn import Int8Linear


class Up(nn.Module):
    """Its norm runs in the call of ``Net.down`` where the whole model is one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.norm = nn.Linear(64, 96), nn.LayerNorm(96)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.up(x))
        return y


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.down = Up(), nn.Linear(96, 64)
        self.register_buffer("shift", torch.linspace(-1, 1, 64))
        self.register_buffer("steps", torch.arange(64))

    def forward(self, x: Tensor, *, on: bool = True) -> Tensor:
        y: Tensor = self.down(self.first(x + self.shift * self.steps)) if on else x
        return y


HALVES = (torch.bfloat16, torch.float16)
X = torch.linspace(-3, 3, 5 * 64).reshape(5, 64).sin()
OPTIONS = {"include": nn.Linear, "never_slower": False}


@pytest.mark.parametrize("dtype", HALVES)
def test_all_but_the_scales_has_it(dtype: torch.dtype) -> None:
    model = Net()
    before = {name: (t.dtype, t.clone()) for name, t in model.state_dict().items()}
    fast = pyops.quantize(model, dtype=dtype, include=nn.Linear)
    assert {fast.first.norm.weight.dtype, fast.first.norm.bias.dtype, fast.shift.dtype} == {dtype}
    assert fast.steps.dtype == torch.int64
    assert isinstance(fast.first.up, Int8Linear)
    assert fast.first.up.weight_scale.dtype == torch.float32
    with torch.no_grad():
        assert fast(X.to(dtype)).dtype == dtype
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == before[name][0]
        assert torch.equal(tensor, before[name][1]), "the model given is as it was"


@pytest.mark.parametrize("dtype", HALVES)
def test_the_same_as_converting_the_result(dtype: torch.dtype) -> None:
    by_argument = pyops.quantize(Net(), dtype=dtype, include=nn.Linear)
    afterwards = pyops.quantize(Net(), include=nn.Linear).to(dtype)
    with torch.no_grad():
        assert torch.equal(by_argument(X.to(dtype)), afterwards(X.to(dtype)))


@pytest.mark.parametrize("dtype", HALVES)
def test_an_example_in_float32_captures_calls_in_it(dtype: torch.dtype) -> None:
    fast = pyops.quantize(Net(), dtype=dtype, example_inputs=(X[:1],), **OPTIONS)
    plain = pyops.quantize(Net(), dtype=dtype, fuse=False, include=nn.Linear)
    captured = pyops.graph.captured_of(fast)
    assert captured is not None
    x = X.to(dtype)
    with torch.no_grad():
        out = fast(x)
        assert out.dtype == dtype
        assert torch.allclose(out.float(), plain(x).float(), atol=3e-2, rtol=3e-2)
    assert not captured.logged, "the call ran as a graph"


@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_layers_are_measured_in_it(given: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = set()
    forward = nn.Linear.forward

    def spy(self: nn.Linear, x: Tensor) -> Tensor:
        seen.add((x.dtype, self.weight.dtype))
        return forward(self, x)

    monkeypatch.setattr(nn.Linear, "forward", spy)
    example = (X[:1].to(given),)
    model = Net()
    pyops.quantize(model, dtype=torch.bfloat16, example_inputs=example, **OPTIONS)
    assert seen == {(torch.bfloat16, torch.bfloat16)}
    assert model.down.weight.dtype == torch.float32


def test_weights_are_quantized_from_what_was_given() -> None:
    fast = pyops.quantize(Net(), dtype=torch.bfloat16, example_inputs=(X[:1],), **OPTIONS)
    plain = pyops.quantize(Net(), include=nn.Linear)
    assert torch.equal(fast.down.weight_scale, plain.down.weight_scale)


def test_a_model_that_fails_on_the_example_is_as_it_was() -> None:
    model = Net()
    with pytest.raises(ValueError, match="Net fails on example_inputs"):
        pyops.quantize(
            model, dtype=torch.float16, example_inputs=(X[:, :5],), inplace=True, **OPTIONS
        )
    assert model.down.weight.dtype == model.shift.dtype == torch.float32


def test_it_is_saved(tmp_path) -> None:
    fast = pyops.quantize(Net(), dtype=torch.bfloat16, example_inputs=(X[:1],), **OPTIONS)
    pyops.save(fast, tmp_path / "model.safetensors")
    again = pyops.load(tmp_path / "model.safetensors", Net())
    x = X.bfloat16()
    with torch.no_grad():
        assert torch.equal(again(x), fast(x))
    assert again.shift.dtype == torch.bfloat16


def test_inplace() -> None:
    model = Net()
    assert pyops.quantize(model, dtype=torch.float16, include=nn.Linear, inplace=True) is model
    assert model.first.norm.weight.dtype == torch.float16


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, "bfloat16"])
def test_others_are_refused(dtype: object) -> None:
    model = Net()
    with pytest.raises(TypeError, match=r"^quantize: dtype must be torch.float32, .*, but is "):
        pyops.quantize(model, dtype=dtype, include=nn.Linear, inplace=True)  # type: ignore[arg-type]
    assert isinstance(model.first.up, nn.Linear)
