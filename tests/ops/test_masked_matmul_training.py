"""Whole steps by masked_matmul: gradients within bounds, and a state that is never out of date."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pyops
from pyops import backends, ops
from pyops.ops import masked_matmul_pattern as patterns
from pyops.testing.cases.masked_matmul import MaskedCase, masked_case
from pyops.testing.compare import assert_same, assert_within
from pyops.testing.threads import on_threads

pytestmark = pytest.mark.skipif(not backends.compiled(), reason="without kernels all is dense")
# (M, N, K): the least that runs sparse; tails of all sorts; several chunks and sections.
SHAPES = ((64, 256, 256), (67, 301, 259), (200, 530, 700))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small products on a busy machine wait for threads longer than they compute."""
    with on_threads(1):
        yield


def check(case: MaskedCase, state: ops.SparsePattern | None, label: str) -> None:
    for out, (exact, bound) in zip(case.step(state), case.exact(), strict=True):
        assert_within(out, exact, bound, f"{label} {case.label}")


@pytest.mark.parametrize("share", [0.1, 0.22, 0.01])
def test_a_step_is_within_its_bounds(isa: str, share: float) -> None:
    for seed, shape in enumerate(SHAPES):
        for at in (seed, seed + 3):
            case, state = masked_case(at, *shape, share), ops.SparsePattern()
            case.mask[0, 0] = True
            check(case, state, isa)
            assert state.reason is None
            assert bool((case.step(state)[2][~case.mask] == 0).all())


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_a_step_does_not_depend_on_threads(threads: int) -> None:
    case = masked_case(1, *SHAPES[2], 0.1)
    with on_threads(1):
        expected = case.step()
    with on_threads(threads):
        for out, one in zip(case.step(), expected, strict=True):
            assert_same(out, one, f"{threads} threads")


def test_inputs_of_any_rank_and_stride() -> None:
    case = masked_case(1, 60, 260, 300, 0.2)
    flat = case.step()
    case.x, case.grad = case.x.reshape(3, 4, 5, 300), case.grad.reshape(3, 4, 5, 260)
    shaped = case.step()
    for out, one in zip(shaped, flat, strict=True):
        assert_same(out.reshape(one.shape), one, "4-D")
    case.weight, case.mask = (t.t().contiguous().t() for t in (case.weight, case.mask))
    for out, one in zip(case.step(), shaped, strict=True):
        assert_same(out, one, "strides")
    case.grad = torch.ones(()).expand(3, 4, 5, 260)
    check(case, None, "an expanded gradient")


def test_what_is_masked_does_not_count() -> None:
    """Neither in the weight, nor what the output's gradient says of it."""
    case = masked_case(1, *SHAPES[0], 0.2)
    expected = case.step()
    case.weight = torch.where(case.mask, case.weight, torch.nan)
    for out, one in zip(case.step(), expected, strict=True):
        assert_same(out, one, "NaN in masked weights")
    case.grad[3] = torch.inf
    assert bool((case.step()[2][~case.mask] == 0).all())


def with_value(value: float) -> Callable[[MaskedCase], None]:
    def change(case: MaskedCase) -> None:
        case.weight[case.mask] = value

    return change


def replace_weight(case: MaskedCase) -> None:
    case.weight = torch.randn_like(case.weight)


def replace_data(case: MaskedCase) -> None:
    case.weight.data = torch.randn_like(case.weight)


def change_mask(case: MaskedCase) -> None:
    case.mask.copy_(case.mask.flip(0))


def replace_mask(case: MaskedCase) -> None:
    case.mask = case.mask.flip(1)


def larger_mask(case: MaskedCase) -> None:
    case.mask.logical_or_(torch.rand(case.mask.shape) < 0.1)


@pytest.mark.parametrize(
    "change",
    [with_value(2.0), with_value(0.0), replace_weight, replace_data, change_mask, replace_mask,
     larger_mask],
)  # fmt: skip
@pytest.mark.parametrize("shared", [True, False])
def test_a_state_follows_weight_and_mask(change: Callable[[Any], None], shared: bool) -> None:
    """Also a weight that was 0: it stays an entry. ``shared``: one state, or that of the mask."""
    case = masked_case(1, *SHAPES[0], 0.2)
    state = ops.SparsePattern() if shared else None
    check(case, state, "before")
    change(case)
    check(case, state, "after")
    case.weight.normal_()
    check(case, state, "and again")


def test_a_state_serves_two_weights_in_turn() -> None:
    """The gradient is that of the weight that the forward pass had."""
    case, state = masked_case(1, *SHAPES[0], 0.2), ops.SparsePattern()
    weights = [torch.randn_like(case.weight).requires_grad_() for _ in range(2)]
    x = case.x.clone().requires_grad_()
    outs = [ops.masked_matmul(x, w, case.mask, state=state) for w in weights]
    for w, out in zip(weights, outs, strict=True):
        (dx,) = torch.autograd.grad(out, x, case.grad)
        kept = torch.where(case.mask, w.detach(), 0.0).double()
        bound = (len(w) + 2) * 2.0**-24 * (case.grad.abs().double() @ kept.abs())
        assert_within(dx, case.grad.double() @ kept, bound, "two weights")


def test_a_weight_that_changes_before_the_backward_pass_is_an_error() -> None:
    case = masked_case(1, *SHAPES[0], 0.2)
    weight = case.weight.clone().requires_grad_()
    out = ops.masked_matmul(case.x.requires_grad_(), weight, case.mask)
    with torch.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward(case.grad)


def test_nothing_is_packed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    pack = patterns._pack
    monkeypatch.setattr(patterns, "_pack", lambda mask: calls.append("pack") or pack(mask))
    case, state = masked_case(1, *SHAPES[0], 0.2), ops.SparsePattern()
    w = case.weight.clone().requires_grad_()
    for _ in range(3):
        ops.masked_matmul(case.x, w, case.mask, state=state).backward(case.grad)
        with torch.no_grad():
            w -= 0.1
    assert len(calls) == 1  # x needs no gradient: the transpose is not packed
    with state.weight(w, case.mask, False) as one, state.weight(w, case.mask, False) as other:
        assert one is other
    assert state.places(case.mask) is state.places(case.mask)
    case.step(state)
    assert len(calls) == 2


def test_tensors_of_inference_mode() -> None:
    case, state = masked_case(1, *SHAPES[0], 0.2), ops.SparsePattern()
    with torch.inference_mode():
        for _ in range(2):
            case.weight = torch.randn_like(case.weight)
            out = ops.masked_matmul(case.x, case.weight, case.mask, case.bias, state=state)
            assert state.reason is None
            exact, bound = case.exact()[0]
            assert_within(out, exact, bound, "an inference weight")
            case.weight.mul_(2)
            out = ops.masked_matmul(case.x, case.weight, case.mask, case.bias, state=state)
            exact, bound = case.exact()[0]
            assert_within(out, exact, bound, "an inference weight, changed")
        case.mask = case.mask.flip(0)
        out = ops.masked_matmul(case.x, case.weight, case.mask, case.bias, state=state)
        exact, bound = case.exact()[0]
        assert_within(out, exact, bound, "an inference mask")
    assert state.reason is not None
    assert "the mask is of torch.inference_mode" in state.reason


def test_a_change_of_instruction_set_packs_again() -> None:
    case, state = masked_case(1, *SHAPES[1], 0.2), ops.SparsePattern()
    for level in (*pyops.isa.available(), pyops.isa.available()[0]):
        with pyops.isa.force(level):
            check(case, state, level)


def test_copies_begin_empty() -> None:
    case, state = masked_case(1, *SHAPES[0], 0.2), ops.SparsePattern()
    check(case, state, "the first")
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state)), copy.copy(state)):
        assert other.number != state.number
        check(case, other, "a copy")


def test_what_data_changes_is_forgotten_by_hand() -> None:
    case, state = masked_case(1, *SHAPES[0], 0.2), ops.SparsePattern()
    check(case, state, "before")
    case.weight.data.mul_(2)
    state.forget()
    check(case, state, "after")


def test_the_state_of_a_mask_lives_as_long_as_the_mask() -> None:
    case = masked_case(1, *SHAPES[0], 0.2)
    check(case, None, "no state")
    state = weakref.ref(patterns.pattern_of(0, case.mask))
    assert state() is not None
    del case
    gc.collect()
    assert state() is None


def test_the_plan_says_why() -> None:
    plan = ops.masked_matmul_plan
    assert plan(256, 1024, 1024, 104858) is None
    for given, why in (
        ((256, 255, 256, 100), "the weight has 65280 values, sparse pays from 65536 on"),
        ((31, 256, 256, 100), "the input has 31 rows, sparse pays from 32 on with 0% kept"),
        ((64, 256, 256, 26214), "the input has 64 rows, sparse pays from 103 on with 40% kept"),
        ((64, 256, 256, 39322), "60% of the weight is kept, sparse pays up to 50%"),
        ((64, 256, 256, 0), "the mask keeps nothing"),
    ):
        assert plan(*given) == why
    for bad in ((-1, 1, 1, 0), (1, 2, 2, 5), (1, 1, 1, -1)):
        with pytest.raises(ValueError, match="rows, n, k and kept must be at least 0"):
            plan(*bad)


@pytest.mark.parametrize(
    ("m", "n", "k", "share"),
    [(256, 64, 64, 0.1), (3, 300, 300, 0.1), (64, 300, 300, 0.7), (40, 300, 300, 0.4)],
)
def test_what_does_not_pay_runs_dense(m: int, n: int, k: int, share: float) -> None:
    case, state = masked_case(1, m, n, k, share), ops.SparsePattern()
    check(case, state, "dense")
    assert state.reason is not None
    assert "sparse pays" in state.reason
    x, w, mask = case.x, case.weight, case.mask
    op = torch.ops.pyops.masked_matmul.default(x, w, mask, case.bias, state.number)
    assert_same(op, F.linear(x, torch.where(mask, w, 0.0), case.bias), "the op decides alike")
    inputs = (case.grad, x, w, mask, state.number)
    dx, dw = torch.ops.pyops.masked_matmul_grad.default(*inputs)
    (_, *bounds) = case.exact()
    for out, (exact, bound) in zip((dx, dw), bounds, strict=False):
        assert_within(out, exact, bound, "the op's gradients")


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_200_steps_keep_masked_weights_zero(name: str) -> None:
    """And learn as the dense product with the mask does."""

    def train(product: Callable[..., Tensor]) -> tuple[list[Tensor], list[float]]:
        rng = torch.Generator().manual_seed(0)
        x, target = torch.randn(32, 256, generator=rng), torch.randn(32, 256, generator=rng)
        layers = []
        for _ in range(2):
            mask = torch.rand(256, 256, generator=rng) < 0.1
            weight = torch.randn(256, 256, generator=rng) * mask / 5
            layers.append((torch.nn.Parameter(weight), mask, ops.SparsePattern()))
        optimizer = OPTIMIZERS[name]([layer[0] for layer in layers])
        losses = []
        for _ in range(200):
            optimizer.zero_grad()
            h = F.relu(product(x, *layers[0]))
            loss = F.mse_loss(product(h, *layers[1]), target)
            loss.backward()
            for weight, mask, _ in layers:
                assert weight.grad is not None
                assert bool((weight.grad[~mask] == 0).all())
            optimizer.step()
            losses.append(float(loss.detach()))
            for weight, mask, _ in layers:
                assert bool((weight[~mask] == 0).all())
        return [layer[0].detach() for layer in layers], losses

    _, sparse = train(lambda x, w, mask, state: ops.masked_matmul(x, w, mask, state=state))
    _, dense = train(lambda x, w, mask, state: F.linear(x, w * mask))
    assert sparse[-1] < 0.5 * sparse[0]
    # Rounding differs from the first step on, and what learns is chaotic: the same curve, not bits.
    assert abs(sparse[-1] - dense[-1]) < 0.02 * dense[0]
