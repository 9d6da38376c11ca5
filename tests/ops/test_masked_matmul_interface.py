"""What the masked ops refuse, on every path to them; tracing, compilation, gradients of float64."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyops import backends, ops
from pyops.ops import masked_matmul_reference as plain
from pyops.ops.masked_matmul_packing import pack_plain
from pyops.testing.cases.masked_matmul import masked_case

N, K = 12, 40
MASK = torch.arange(N * K).reshape(N, K) % 7 == 0
X, W, B, G = torch.ones(4, K), torch.ones(N, K), torch.ones(N), torch.ones(4, N)
WHERE = ["public", "kernel", "reference", "fake"]
# Large enough to run sparse.
SPARSE = masked_case(1, 60, 260, 300, 0.2)


def arguments(op: str, where: str) -> dict[str, Any]:
    pattern = {} if where == "public" else {"pattern": 0}
    packed = pack_plain(MASK) if where == "reference" else ops.masked_pack(MASK)
    return {
        "masked_pack": {"mask": MASK},
        "masked_unpack": {"packed": packed, "n": N, "k": K},
        "masked_weight_grad": {"grad": G, "x": X, "packed": packed},
        "masked_matmul": {"x": X, "weight": W, "mask": MASK, "bias": B, **pattern},
        "masked_matmul_grad": {
            "grad": G, "x": X, "weight": W, "mask": MASK, "pattern": 0,
        },
    }[op]  # fmt: skip


def call(op: str, where: str, given: dict[str, Any]) -> Any:
    if where == "public":
        return getattr(ops, op)(**given)
    values = list(given.values())
    if where == "reference":
        return getattr(plain, f"{op}_reference")(*values)
    if where == "fake":
        values = [v.to("meta") if isinstance(v, Tensor) else v for v in values]
    return getattr(torch.ops.pyops, op).default(*values)


def refused(op: str, where: str, given: dict[str, Any], error: type, message: str) -> None:
    """A compiled kernel raises RuntimeError, and leaves out what was given."""
    if where == "public" and op == "masked_matmul_grad":
        pytest.skip("it has no public function")
    if where == "kernel" and not op.startswith("masked_matmul"):
        if not backends.compiled():
            pytest.skip("nothing is compiled")
        error, message = RuntimeError, message.partition(", but ")[0]
    with pytest.raises(error, match=re.escape(f"{op}: {message}")):
        call(op, where, given)


@pytest.mark.parametrize("where", WHERE)
def test_the_arguments_are_good(where: str) -> None:
    for op, shape in (("masked_weight_grad", (N, K)), ("masked_matmul", (4, N))):
        assert call(op, where, arguments(op, where)).shape == shape
    assert call("masked_unpack", where, arguments("masked_unpack", where)).shape == (N, K)
    if where != "fake":  # meta tensors have no unknown size: test_opcheck
        assert call("masked_pack", where, arguments("masked_pack", where)).dtype == torch.uint8


BAD: list[tuple[str, dict[str, Any], type, str]] = [
    ("masked_pack", {"mask": W}, TypeError, "mask must be torch.bool, but is torch.float32"),
    ("masked_pack", {"mask": MASK[0]}, ValueError, "mask must be 2-D [N, K], but is 1-D"),
    ("masked_unpack", {"packed": W}, TypeError,
     "packed must be the 1-D torch.uint8 tensor that masked_pack returns, but is 2-D "
     "torch.float32"),
    ("masked_weight_grad", {"packed": B}, TypeError,
     "packed must be the 1-D torch.uint8 tensor that masked_pack returns, but is 1-D "
     "torch.float32"),
    ("masked_weight_grad", {"grad": G.double()}, TypeError,
     "grad must be torch.float32, but is torch.float64"),
    ("masked_weight_grad", {"x": X.half()}, TypeError,
     "x must be torch.float32, but is torch.float16"),
    ("masked_weight_grad", {"x": torch.tensor(1.0)}, ValueError,
     "x must have at least 1 dimension, but has 0"),
    ("masked_weight_grad", {"x": X[:3]}, ValueError,
     "grad and x must have the same dimensions but the last, but are [4, 12] and [3, 40]"),
    ("masked_matmul", {"weight": W.bfloat16()}, TypeError,
     "weight must be torch.float32 or torch.float64, but is torch.bfloat16"),
    ("masked_matmul", {"weight": W[0]}, ValueError, "weight must be 2-D [N, K], but is 1-D"),
    ("masked_matmul", {"mask": W}, TypeError, "mask must be torch.bool, but is torch.float32"),
    ("masked_matmul", {"mask": MASK[1:]}, ValueError,
     "mask must have the shape of weight, [12, 40], but is [11, 40]"),
    ("masked_matmul", {"x": X.double()}, TypeError,
     "x must have the dtype of weight, torch.float32, but is torch.float64"),
    ("masked_matmul", {"x": X[:, 1:]}, ValueError,
     "the last dimension of x must be 40, but is 39"),
    ("masked_matmul", {"x": torch.tensor(1.0)}, ValueError,
     "x must have at least 1 dimension, but has 0"),
    ("masked_matmul", {"bias": B.double()}, TypeError,
     "bias must have the dtype of weight, torch.float32, but is torch.float64"),
    ("masked_matmul", {"bias": B[1:]}, ValueError, "bias must be [12], but is [11]"),
    ("masked_matmul_grad", {"grad": G.double()}, TypeError,
     "grad must have the dtype of weight, torch.float32, but is torch.float64"),
    ("masked_matmul_grad", {"grad": G[1:]}, ValueError, "grad must be [4, 12], but is [3, 12]"),
    ("masked_matmul_grad", {"x": None, "grad": G[:, 1:]}, ValueError,
     "grad must be [4, 12], but is [4, 11]"),
    ("masked_matmul_grad", {"weight": None, "grad": G[1:]}, ValueError,
     "grad must be [4, 12], but is [3, 12]"),
    ("masked_matmul_grad", {"x": None, "weight": None}, ValueError,
     "x and weight are both None, expected one of them at least"),
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(
    ("op", "change", "error", "message"), BAD, ids=[f"{b[0]} {b[3]}" for b in BAD]
)
def test_bad_arguments(
    op: str, where: str, change: dict[str, Any], error: type, message: str
) -> None:
    refused(op, where, arguments(op, where) | change, error, message)


@pytest.mark.parametrize("where", ["public", "kernel", "reference"])
def test_a_shape_that_the_packed_mask_contradicts(where: str) -> None:
    for op, change, asked in (
        ("masked_unpack", {"k": K + 1}, "[12, 41]"),
        ("masked_weight_grad", {"x": torch.ones(4, K + 1)}, "[12, 41]"),
        ("masked_weight_grad", {"grad": torch.ones(4, N - 1)}, "[11, 40]"),
    ):
        given = arguments(op, where) | change
        message = f"{op}: the packed mask is [12, 40], but {asked} is needed"
        with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
            call(op, where, given)


def test_damaged_plain_masks() -> None:
    good = pack_plain(MASK)
    for at, value, message in (
        (0, 0, "packed mask: not made by masked_pack (no header)"),
        (8, 9, "packed mask: version 9, expected 1"),
        (12, 1, "packed mask: layout of the kernels, but the reference takes plain"),
        (23, 255, "packed mask: its header is damaged"),
        (16, 13, "packed mask: 544 bytes, expected 584 for 13 x 40"),
    ):
        bad = good.clone()
        bad[at] = value
        with pytest.raises(ValueError, match=re.escape(message)):
            plain.masked_weight_grad_reference(G, X, bad)
    message = "packed mask: 63 bytes, shorter than its header of 64"
    with pytest.raises(ValueError, match=message):
        plain.masked_unpack_reference(good[:63], N, K)
    if backends.compiled():
        with pytest.raises(RuntimeError, match="layout plain is the reference's; pack it again"):
            torch.ops.pyops.masked_weight_grad.default(G, X, good)
        assert torch.equal(torch.ops.pyops.masked_unpack.default(good, N, K), MASK)


def test_the_gradient_alone_is_no_differentiable_op() -> None:
    given = arguments("masked_weight_grad", "public")
    for name in ("grad", "x"):
        needs = given | {name: given[name].clone().requires_grad_()}
        with pytest.raises(ValueError, match="masked_weight_grad is for inference"):
            ops.masked_weight_grad(**needs)


def test_operands_on_two_devices() -> None:
    for name, tensor in (("weight", W), ("mask", MASK), ("bias", B)):
        given = arguments("masked_matmul", "public") | {name: tensor.to("meta")}
        message = f"masked_matmul: {name} is on meta, but the first argument on cpu"
        with pytest.raises(ValueError, match=re.escape(message)):
            ops.masked_matmul(**given)


def test_opcheck() -> None:
    case, test = SPARSE, torch.library.opcheck
    state = ops.SparsePattern()
    packed = ops.masked_pack(case.mask)
    test(torch.ops.pyops.masked_pack.default, (case.mask,))
    test(torch.ops.pyops.masked_unpack.default, (packed, 260, 300))
    test(torch.ops.pyops.masked_weight_grad.default, (case.grad, case.x, packed))
    leaves = [t.clone().requires_grad_() for t in (case.x, case.weight, case.bias)]
    test(
        torch.ops.pyops.masked_matmul.default,
        (leaves[0], leaves[1], case.mask, leaves[2], state.number),
    )
    for x, weight in ((case.x, case.weight), (case.x, None), (None, case.weight)):
        inputs = (case.grad, x, weight, case.mask, 0)
        test(torch.ops.pyops.masked_matmul_grad.default, inputs)


@pytest.mark.parametrize("bias", [True, False])
def test_gradients_in_float64(bias: bool) -> None:
    case = masked_case(3, 3, 5, 7, 0.5)
    inputs = [t.double().requires_grad_() for t in (case.x, case.weight, torch.randn(5))]
    inputs = inputs if bias else inputs[:2]
    op = torch.ops.pyops.masked_matmul.default

    def public(x: Tensor, weight: Tensor, b: Tensor | None = None) -> Tensor:
        return ops.masked_matmul(x, weight, case.mask, b)

    def dispatched(x: Tensor, weight: Tensor, b: Tensor | None = None) -> Tensor:
        out: Tensor = op(x, weight, case.mask, b, 0)
        return out

    assert torch.autograd.gradcheck(public, inputs)
    assert torch.autograd.gradcheck(dispatched, inputs)


def test_only_the_gradients_that_are_needed() -> None:
    case = SPARSE
    x, weight = case.x, case.weight.clone().requires_grad_()
    expected = case.step()
    ops.masked_matmul(x, weight, case.mask, case.bias).backward(case.grad)
    assert torch.equal(weight.grad, expected[2])
    x = x.clone().requires_grad_()
    ops.masked_matmul(x, case.weight, case.mask, case.bias).backward(case.grad)
    assert torch.equal(x.grad, expected[1])
    bias = case.bias.clone().requires_grad_()
    ops.masked_matmul(case.x, case.weight, case.mask, bias).backward(case.grad)
    assert torch.equal(bias.grad, expected[3])


def test_compile_trains_as_eager_does() -> None:
    """The compiled step sees new weights, and has no graph break. It runs dense."""

    def train(compiled: bool) -> list[Tensor]:
        case, state = SPARSE, ops.SparsePattern()
        weight, bias = (torch.nn.Parameter(t.clone()) for t in (case.weight, case.bias))

        def forward(x: Tensor) -> Tensor:
            return F.relu(ops.masked_matmul(x, weight, case.mask, bias, state=state))

        run = torch.compile(forward, fullgraph=True, backend="aot_eager") if compiled else forward
        optimizer = torch.optim.SGD((weight, bias), lr=0.1, momentum=0.9)
        for _ in range(4):
            optimizer.zero_grad()
            run(case.x).square().mean().backward()
            optimizer.step()
        return [weight.detach(), bias.detach()]

    for one, other in zip(train(True), train(False), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_torch_func_runs_dense_and_leaves_nothing_behind() -> None:
    case = SPARSE
    mask = case.mask.clone()

    def loss(weight: Tensor) -> Tensor:
        return ops.masked_matmul(case.x, weight, mask).square().sum()

    got = torch.func.grad(loss)(case.weight)
    weight = case.weight.clone().requires_grad_()
    loss(weight).backward()
    assert torch.allclose(got, weight.grad, rtol=1e-3, atol=1e-2)


def test_a_state_may_die_before_backward() -> None:
    weight = SPARSE.weight.clone().requires_grad_()
    ops.masked_matmul(SPARSE.x, weight, SPARSE.mask, state=ops.SparsePattern()).sum().backward()
    assert weight.grad is not None


def test_autocast_computes_in_its_own_type() -> None:
    case, state = SPARSE, ops.SparsePattern()
    weight = case.weight.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = ops.masked_matmul(case.x, weight, case.mask, case.bias, state=state)
        expected = F.linear(case.x, torch.where(case.mask, case.weight, 0.0), case.bias)
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, expected)
    assert state.reason == "autocast computes in another type"
    out.float().sum().backward()
    assert bool((weight.grad[~case.mask] == 0).all())


def test_a_number_that_no_pattern_has() -> None:
    if not backends.compiled():
        pytest.skip("the reference takes any number")
    message = "masked_matmul: pattern is 1099511627776, which no SparsePattern has"
    with pytest.raises(ValueError, match=message):
        torch.ops.pyops.masked_matmul.default(X, W, MASK, B, 1 << 40)
