"""``sparsify``: pruned models on sparse kernels where they pay."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pyops
from pyops.ops.sparse_cost import share_of_dense
from pyops.testing.cases.sparse_gemm import masked
from pyops.testing.models import resnet


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.body = nn.Conv2d(64, 128, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(128)
        self.depthwise = nn.Conv2d(128, 128, 3, groups=128)
        self.head = nn.Linear(128, 256)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.body(torch.relu(self.stem(x)))))
        return self.head(self.depthwise(x).mean((2, 3)))


X = torch.randn(2, 3, 12, 12)


def pruned(pattern: str = "unstructured") -> nn.Module:
    return pyops.prune(Net().eval(), 0.9, pattern=pattern, include=["body", "head"])


def rows(model: nn.Module) -> dict[str, Any]:
    return {row.name: row for row in pyops.explain(model).rows}


@pytest.mark.parametrize("pattern", ["unstructured", "block:16x1"])
def test_a_pruned_model_computes_the_same(pattern: str) -> None:
    model = pruned(pattern)
    before = copy.deepcopy(model.state_dict())
    fast = pyops.sparsify(model, example_inputs=X, never_slower=False)
    with torch.no_grad():
        assert torch.allclose(fast(X), model(X), atol=1e-5)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    found = rows(fast)
    assert "packed sparse: 90" in found["body"].reason
    assert "packed sparse: 90" in found["head"].reason
    assert "dense: 0% of the weight are 0 (sparse: " in found["stem"].reason
    assert "sparse kernels never pay" in found["depthwise"].reason
    assert found["body"].bytes_after < 0.3 * found["body"].bytes_before


def test_models_that_others_pruned() -> None:
    model = Net().eval()
    with torch.no_grad():
        model.head.weight.copy_(masked(model.head.weight, 0.1, 1, 0))
    fast = pyops.sparsify(model, example_inputs=X, never_slower=False)
    assert "packed sparse" in rows(fast)["head"].reason
    assert "packed sparse" not in rows(fast)["body"].reason
    with torch.no_grad():
        assert torch.allclose(fast(X), model(X), atol=1e-5)


def test_bfloat16() -> None:
    model = pruned()
    fast = pyops.sparsify(model, dtype=torch.bfloat16, example_inputs=X, never_slower=False)
    with torch.no_grad():
        want = model(X)
        assert (fast(X).float() - want).abs().max() < 0.03 * want.abs().max()


def test_dense_models_stay_dense() -> None:
    fast = pyops.sparsify(Net().eval(), example_inputs=X, never_slower=False)
    assert not [row for row in rows(fast).values() if "packed sparse" in row.reason]


def test_saved_and_loaded(tmp_path: Path) -> None:
    fast = pyops.sparsify(pruned(), example_inputs=X, never_slower=False)
    pyops.save(fast, tmp_path / "net.safetensors")
    back = pyops.load(tmp_path / "net.safetensors", Net())
    with torch.no_grad():
        assert torch.equal(back(X), fast(X))
    assert "packed sparse" in rows(back)["body"].reason


def test_copies_and_other_levels() -> None:
    fast = pyops.sparsify(pruned(), example_inputs=X, never_slower=False)
    with torch.no_grad():
        want = fast(X)
        assert torch.equal(copy.deepcopy(fast)(X), want)
        with pyops.isa.force("generic"):
            assert torch.allclose(fast(X), want, atol=1e-4)
        assert torch.equal(fast(X), want)


def test_refusals() -> None:
    with pytest.raises(TypeError, match=r"^sparsify takes an nn\.Module, but got Tensor$"):
        pyops.sparsify(X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^sparsify: calibration= goes with dtype='int8', but"):
        pyops.sparsify(Net(), calibration=[X])
    with pytest.raises(ValueError, match=r"^sparsify: never_slower=True needs example_inputs to"):
        pyops.sparsify(Net(), never_slower=True)
    with pytest.raises(ValueError, match=r"^sparsify: the model fails on example_inputs: Runtime"):
        pyops.sparsify(pruned(), example_inputs=X[:, :2])
    with pytest.raises(ValueError, match=r"^sparsify: nothing to replace in ReLU: "):
        pyops.sparsify(nn.ReLU(), dtype="int8")
    with pytest.raises(ValueError, match=r"^sparsify: dtype must be a float dtype or 'int8', but"):
        pyops.sparsify(Net(), dtype="int4")
    with pytest.raises(TypeError, match=r"^sparsify: dtype must be torch\.float32 or"):
        pyops.sparsify(Net(), dtype=torch.float16)


def test_int8_computes_the_same_numbers_as_dense_int8(tmp_path: Path) -> None:
    model = pruned()
    batches = [torch.randn(2, 3, 12, 12) for _ in range(2)]
    fast = pyops.sparsify(model, dtype="int8", calibration=batches)
    dense = pyops.quantize(pyops.prune.unmask(model), calibration=batches)
    with torch.no_grad():
        assert torch.equal(fast(X), dense(X))
        found = rows(fast)
        assert "packed sparse: 9" in found["body"].reason
        assert "dense: " in found["stem"].reason
        assert "sparse kernels never pay" in found["depthwise"].reason
        assert found["body"].bytes_after < 0.6 * rows(dense)["body"].bytes_after
        pyops.save(fast, tmp_path / "net.safetensors")
        back = pyops.load(tmp_path / "net.safetensors", Net())
        assert torch.equal(back(X), dense(X))
        assert "packed sparse" in rows(back)["body"].reason
        assert torch.equal(copy.deepcopy(fast)(X), dense(X))
        assert torch.equal(pickle.loads(pickle.dumps(fast))(X), dense(X))
        for level in ("avx2", "generic"):
            with pyops.isa.force(level):
                assert torch.equal(fast(X), dense(X)), level
        assert torch.equal(fast(X), dense(X))


def test_dynamic_int8_of_a_transformer() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(256, 4, 512, batch_first=True).eval()
    model = pyops.prune(layer, 0.9, include=["linear1", "linear2"])
    fast = pyops.sparsify(model, dtype="int8")
    dense = pyops.quantize(pyops.prune.unmask(model), fuse=False)
    x = torch.randn(2, 16, 256)
    with torch.no_grad():
        assert torch.equal(fast(x), dense(x))
    assert "packed sparse: 9" in rows(fast)["linear1"].reason


def test_estimates_follow_zeros_and_patterns() -> None:
    weight = torch.randn(256, 256)
    shares = [
        share_of_dense(masked(weight, 1 - zeros, shared, 0)[..., None, None])
        for shared in (1, 4)
        for zeros in (0.0, 0.5, 0.9)
    ]
    assert shares[0] > 1 > shares[1] > shares[2]
    assert shares[3] > shares[4] > shares[5]
    assert shares[4] < shares[1]
    wide = weight[..., None, None].to(torch.bfloat16)
    assert share_of_dense(wide) >= share_of_dense(wide, dtype=torch.float32)
    assert share_of_dense(torch.zeros(8, 1, 3, 3), groups=8) == float("inf")


@pytest.mark.slow
def test_resnet() -> None:
    model = resnet.random_model(50).eval()
    x = torch.randn(2, 3, 96, 96)
    small = pyops.prune(model, 0.95, include=nn.Conv2d, exclude="conv1")
    fast = pyops.sparsify(small, example_inputs=x, never_slower=False)
    with torch.no_grad():
        want = small(x)
        assert (fast(x) - want).abs().max() < 1e-4 * want.abs().max()
    assert sum("packed sparse" in row.reason for row in rows(fast).values()) == 52
