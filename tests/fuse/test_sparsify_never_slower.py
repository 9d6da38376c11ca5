"""sparsify(never_slower=): dense and sparse timed on what layers see, the faster one kept."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import pyops
from pyops.nn.packed_module import PackedModule
from pyops.ops.sparse_cost import break_even, share_of_dense
from pyops.quantize import measure
from pyops.testing.cases.sparse_gemm import masked

X = torch.randn(5, 64, generator=torch.Generator().manual_seed(0))


def make() -> nn.Module:
    """0, 2 and 4 are nine tenths zeros, 6 has none."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 128), nn.ReLU(), nn.Linear(128, 160),
        nn.ReLU(), nn.Linear(160, 512),
    )  # fmt: skip
    with torch.no_grad():
        for index in (0, 2, 4):
            model[index].weight.copy_(masked(model[index].weight, 0.1, 1, index))
    return model.eval()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[float, float]]:
    """Decides the times: ``clock[out_features] = (dense_ms, sparse_ms)``."""
    times: dict[int, tuple[float, float]] = {}

    def interleaved(first: Any, second: Any) -> tuple[float, float]:
        dense, sparse = first(), second()
        assert torch.allclose(dense, sparse, atol=1e-2)
        return times[dense.shape[1]]

    monkeypatch.setattr(measure, "_interleaved", interleaved)
    return times


def rows(model: nn.Module) -> dict[str, Any]:
    return {row.name: row for row in pyops.explain(model).rows}


def sparse(model: nn.Module) -> list[str]:
    """The layers that really hold a sparse weight."""
    layers = [(n, m) for n, m in model.named_modules() if isinstance(m, PackedModule)]
    return [name for name, layer in layers if "sparse" in layer.packed.remark]


def test_the_faster_is_kept_and_both_times_are_told(clock: Any, tmp_path: Path) -> None:
    clock.update({96: (2.0, 1.0), 128: (1.0, 3.0), 160: (1.0, 1.0)})
    model = make()
    fast = pyops.sparsify(model, example_inputs=X)
    assert sparse(fast) == ["0", "4"]
    found = rows(fast)
    told = "; sparse is faster here: 1 ms, dense 2 ms, input [5, 64]; packed sparse: 8"
    assert told in found["0"].reason
    assert (found["0"].ms_before, found["0"].ms_after) == (2.0, 1.0)
    told = "; dense is faster here: 1 ms, sparse 3 ms, input [5, 96]; dense: 89% of the weight are"
    assert told in found["2"].reason
    assert (found["2"].ms_before, found["2"].ms_after) == (1.0, 3.0)
    assert "by the estimate, break-even at " in found["6"].reason
    assert found["6"].ms_before is None
    with torch.no_grad():
        assert torch.allclose(fast(X), model(X), atol=1e-5)
    pyops.save(fast, tmp_path / "net.safetensors")
    assert rows(pyops.load(tmp_path / "net.safetensors", make())) == found


def test_it_can_be_off_and_needs_an_example(clock: Any) -> None:
    clock.update({96: (1.0, 9.0), 128: (1.0, 9.0), 160: (1.0, 9.0)})
    for options in ({}, {"example_inputs": X, "never_slower": False}):
        fast = pyops.sparsify(make(), **options)
        assert sparse(fast) == ["0", "2", "4"]
        found = rows(fast)
        assert all(row.ms_before is None for row in found.values())
        assert "; sparse: 0." in found["0"].reason
        assert "of the dense time by the estimate; packed sparse" in found["0"].reason


def test_all_dense_is_a_result_but_not_a_silent_one(
    clock: Any, caplog: pytest.LogCaptureFixture
) -> None:
    clock.update({96: (1.0, 9.0), 128: (1.0, 9.0), 160: (1.0, 9.0)})
    with caplog.at_level(logging.WARNING, logger="pyops"):
        assert sparse(pyops.sparsify(make(), example_inputs=X)) == []
    assert "sparse is slower for every layer of Sequential" in caplog.text


def test_what_the_estimate_calls_slower_may_win(clock: Any) -> None:
    clock.update({96: (2.0, 1.0), 128: (2.0, 1.0), 160: (2.0, 1.0), 512: (2.0, 1.0)})
    model = make()
    with torch.no_grad():
        model[6].weight.copy_(masked(model[6].weight, 0.7, 1, 6))
    assert share_of_dense(model[6].weight.detach()[..., None, None]) > 1
    assert sparse(pyops.sparsify(model)) == ["0", "2", "4"]
    assert sparse(pyops.sparsify(model, example_inputs=X)) == ["0", "2", "4", "6"]


def test_tied_weights_are_decided_together(clock: Any) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
            self.first.weight = nn.Parameter(masked(torch.randn(64, 64), 0.1, 1, 0))
            self.second.weight = self.first.weight

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    times = iter([(2.0, 1.0), (1.0, 4.0)])
    measure._interleaved = lambda first, second: next(times)  # type: ignore[assignment]
    fast = pyops.sparsify(Twice().eval(), example_inputs=X)
    assert sparse(fast) == []
    assert fast.first.packed is fast.second.packed
    assert "dense is faster here: 3 ms, sparse 5 ms, input [5, 64]" in rows(fast)["first"].reason


@pytest.mark.parametrize("static", [True, False])
def test_int8(clock: Any, static: bool) -> None:
    clock.update({96: (2.0, 1.0), 128: (1.0, 3.0), 160: (2.0, 1.0), 512: (2.0, 1.0)})
    model = make()
    options: dict[str, Any] = {"calibration": [X]} if static else {}
    fast = pyops.sparsify(model, dtype="int8", example_inputs=X, **options)
    dense = pyops.quantize(model, **options) if static else None
    found = rows(fast)
    if static:
        assert sparse(fast) == ["0", "4"]
        assert "; dense is faster here: 1 ms, sparse 3 ms, input [5, 96]" in found["2"].reason
        assert (found["2"].ms_before, found["2"].ms_after) == (1.0, 3.0)
        with torch.no_grad():
            assert torch.equal(fast(X), dense(X))
    else:  # the same clock finds int8 slower than float for "2"
        assert sparse(fast) == ["0", "4"]
        assert found["2"].reason.startswith("float is faster here: 1 ms, int8 3 ms")
        assert (found["0"].ms_before, found["0"].ms_after) == (2.0, 1.0)
    assert "; sparse is faster here: 1 ms, dense 2 ms, input [5, 64]" in found["0"].reason
    assert copy.deepcopy(fast)[0].packed.runs_on == fast[0].packed.runs_on


def test_int8_by_the_estimate() -> None:
    found = rows(pyops.sparsify(make(), dtype="int8"))
    assert "of the dense time by the estimate; packed sparse: 9" in found["4"].reason
    assert "by the estimate, break-even at " in found["6"].reason


def test_a_real_clock_chooses_the_smaller_time() -> None:
    model = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 1)).eval()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(masked(layer.weight.flatten(1), 0.3, 1, 0).view_as(layer.weight))
    x = torch.randn(1, 64, 14, 14)
    fast = pyops.sparsify(model, example_inputs=x)
    for name, row in rows(fast).items():
        assert row.ms_before > 0
        assert row.ms_after > 0
        assert (name in sparse(fast)) == (row.ms_after <= row.ms_before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("shape", [(768, 3072, 1, 1), (128, 64, 3, 3), (64, 512, 1, 1)])
def test_break_even_is_where_the_estimate_crosses(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    found = break_even(shape, dtype=dtype)
    assert found is not None
    assert 0.2 < found < 0.9
    full = torch.randint(1, 127, (shape[0], shape[1] * shape[2] * shape[3])).to(dtype)
    for zeros, slower in ((found - 0.03, True), (found + 0.03, False)):
        weight = masked(full, 1 - zeros, 1, 0).reshape(shape)
        # int8 panels of a full weight are estimated at 0.99 of the dense time.
        assert (share_of_dense(weight) > 0.98) == slower


def test_break_even_of_what_never_pays() -> None:
    assert break_even((8, 1, 3, 3), groups=8) is None
    assert break_even((4, 4, 1, 1)) is None


def test_explain_says_from_how_many_zeros_on_it_pays() -> None:
    float_even, codes_even = (
        break_even((160, 128, 1, 1), dtype=dtype) for dtype in (torch.float32, torch.int8)
    )
    pays = f"sparse kernels (pyops.sparsify) pay from {float_even:.0%} in float32, "
    pays += f"{codes_even:.0%} in int8"
    model = make()
    assert f"; 90% of its weights are 0: {pays}" in rows(model)["4"].reason
    assert "of its weights" not in rows(model)["6"].reason
    assert rows(pyops.prune(model, 0.95))["4"].reason.endswith(pays)
    found = rows(pyops.sparsify(make()))["6"].reason
    assert f"break-even at {break_even((512, 160, 1, 1)):.0%} zeros" in found


@pytest.mark.parametrize(
    ("dtype", "way"), [(torch.float16, "dtype=torch.float32"), (torch.float64, "of model.float()")]
)
def test_explain_of_types_without_kernels(dtype: torch.dtype, way: str) -> None:
    """It names the way to sparse kernels, and that is one."""
    pruned = pyops.prune(make(), 0.95).to(dtype)
    even = break_even((160, 128, 1, 1), dtype=torch.float32)
    reason = rows(pruned)["4"].reason
    assert f"(pyops.sparsify) pay from {even:.0%} in float32 ({way})" in reason
    assert ("in int8" in reason) == (dtype == torch.float16)
    with pytest.raises(ValueError, match="nothing to replace"):
        pyops.sparsify(pruned)
    if dtype == torch.float16:
        assert sparse(pyops.sparsify(pruned, dtype=torch.float32))
    else:
        assert sparse(pyops.sparsify(pruned.float()))


def test_explain_of_a_weight_without_entries() -> None:
    for layer in (nn.Linear(5, 0), nn.Linear(0, 5)):
        (row,) = pyops.explain(nn.Sequential(layer)).rows
        assert "%" not in row.reason


def test_a_call_without_rows_takes_no_time(clock: Any) -> None:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.expert = make()[2]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.expert(x[:0]), self.expert(x)])

    clock[128] = (2.0, 1.0)
    (row,) = pyops.explain(pyops.sparsify(Routed(), example_inputs=torch.randn(5, 96))).rows
    assert (row.ms_before, row.ms_after) == (2.0, 1.0)
