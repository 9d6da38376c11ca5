"""What int8_rows refuses: public function, kernel, reference and fake."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from pyops import backends, ops
from pyops.ops import RowProgram, packing
from pyops.ops.int8_gemm_rows_reference import int8_rows_reference

H, K, N = 24, 20, 12
UP = torch.arange(H * K).remainder(255).sub(127).to(torch.int8).reshape(H, K)
DOWN = torch.arange(N * H).remainder(255).sub(127).to(torch.int8).reshape(N, H)
X, R, SCALE_UP, SCALE_DOWN = torch.randn(4, K), torch.ones(4, N), torch.ones(H), torch.ones(N)
FLOATS = "torch.float32, torch.bfloat16 or torch.float16"
PACKED = "packed must be the 1-D torch.uint8 tensor that int8_pack returns"
WHERE = ["public", "kernel", "reference", "fake"]


def program() -> RowProgram:
    """up with gelu, LayerNorm, down with a residual."""
    made = RowProgram(inputs=2)
    hidden = made.layer_norm(made.linear(0, activation="gelu"), eps=1e-5)
    made.returns(made.linear(hidden, residual=1, bias=False))
    return made


def arguments(where: str) -> dict[str, Any]:
    pack = packing.pack_plain if where == "reference" else ops.int8_pack
    made = program()
    return {
        "inputs": [X, R],
        "tensors": [pack(UP), SCALE_UP, SCALE_UP, SCALE_UP, SCALE_UP, pack(DOWN), SCALE_DOWN],
        "steps": made.steps, "eps": made.eps, "outputs": made.outputs, "out_dtype": 0,
    }  # fmt: skip


def call(where: str, given: dict[str, Any]) -> list[Tensor]:
    if where == "public":
        made = RowProgram(len(given["inputs"]), given["steps"], given["eps"], given["outputs"])
        dtype = [torch.float32, torch.bfloat16, torch.float16, torch.int8][given["out_dtype"]]
        return ops.int8_rows(made, given["inputs"], given["tensors"], out_dtype=dtype)
    values = list(given.values())
    if where == "reference":
        return int8_rows_reference(*values)
    if where == "fake":
        values[:2] = [[t.to("meta") for t in tensors] for tensors in values[:2]]
    return torch.ops.pyops.int8_rows.default(*values)


def refused(where: str, change: dict[str, Any], error: type, message: str) -> None:
    """The kernel raises RuntimeError, and leaves out what was given."""
    if where == "kernel":
        error, message = RuntimeError, message.partition(", but is ")[0].partition(", but reg")[0]
    with pytest.raises(error, match=re.escape(f"int8_rows: {message}")):
        call(where, arguments(where) | change)


def tensors(at: int, value: Any) -> dict[str, Any]:
    own = arguments("public")["tensors"]
    return {"tensors": [*own[:at], value, *own[at + 1 :]]}


def step(number: int, at: int, value: int) -> dict[str, Any]:
    ints = list(program().steps)
    ints[6 * number + at] = value
    return {"steps": ints}


@pytest.mark.parametrize("where", WHERE)
def test_the_arguments_are_good(where: str) -> None:
    assert call(where, arguments(where))[0].shape == (4, N)


TENSORS: list[tuple[dict[str, Any], type, str]] = [
    ({"inputs": []}, ValueError, "inputs must hold at least 1 tensor, but is empty"),
    ({"inputs": [X.double(), R]}, TypeError, f"inputs must be {FLOATS}, but is torch.float64"),
    ({"inputs": [X, R.int()]}, TypeError, f"inputs must be {FLOATS}, but is torch.int32"),
    ({"inputs": [torch.tensor(1.0), R]}, ValueError,
     "inputs must have at least 1 dimension, but has 0"),
    ({"inputs": [X, R[:3]]}, ValueError,
     "inputs[1] must have the leading dimensions of inputs[0], but is [3, 12]"),
    ({"inputs": [X, R[None]]}, ValueError,
     "inputs[1] must have the leading dimensions of inputs[0], but is [1, 4, 12]"),
    ({"inputs": [X, torch.ones(4, H)]}, ValueError,
     "step 2: residual must have 12 columns, but register 1 has 24"),
    (tensors(0, UP), TypeError, f"{PACKED}, but is 2-D torch.int8"),
    (tensors(1, SCALE_UP[None]), ValueError, "scale_w must be 1-D [N], but is 2-D"),
    (tensors(1, SCALE_UP.double()), TypeError,
     "scale_w must be torch.float32, but is torch.float64"),
    (tensors(2, SCALE_DOWN), ValueError, "bias must be [24], but is [12]"),
    (tensors(2, SCALE_UP.half()), TypeError, "bias must be torch.float32, but is torch.float16"),
    (tensors(3, SCALE_DOWN), ValueError, "weight must be [24], but is [12]"),
    (tensors(3, SCALE_UP[None]), ValueError, "weight must be [24], but is [1, 24]"),
    (tensors(3, SCALE_UP.int()), TypeError, f"weight must be {FLOATS}, but is torch.int32"),
    (tensors(4, SCALE_DOWN), ValueError, "bias must be [24], but is [12]"),
    ({"tensors": []}, ValueError, "the steps take more than the 0 tensors that are given"),
    ({"tensors": arguments("public")["tensors"][:-1]}, ValueError,
     "the steps take more than the 6 tensors that are given"),
    ({"tensors": [*arguments("public")["tensors"], R]}, ValueError,
     "the steps take 7 tensors, but 8 are given"),
]  # fmt: skip
INTEGERS: list[tuple[dict[str, Any], str]] = [
    ({"steps": []}, "steps must be 6 integers for each step, but are 0"),
    ({"steps": program().steps[:-1]}, "steps must be 6 integers for each step, but are 17"),
    ({"eps": [0.0]}, "eps has 1 entries for 3 steps"),
    (step(0, 0, -1), "step code -1 is unknown"),
    (step(0, 0, 3), "step code 3 is unknown"),
    *((step(0, 1, at), f"step 0 reads register {at}, but there are 2") for at in (-1, 2, 2**40)),
    *((step(2, 1, at), f"step 2 reads register {at}, but there are 4") for at in (-1, 4, -(2**63))),
    *((step(2, 2, at), f"step 2 reads register {at}, but there are 4") for at in (-2, 4, 2**62)),
    *((step(2, 3, at), f"step 2 reads register {at}, but there are 4") for at in (-2, 4)),
    (step(2, 2, 3), "step 2: residual must have 12 columns, but register 3 has 24"),
    (step(2, 3, 2), "step 2: gate must have 12 columns, but register 2 has 24"),
    *((step(0, 4, code), f"activation code {code} is unknown") for code in (-1, 5, 2**40)),
    *((step(1, i, 0), "step 1 is a norm, which takes no residual, gate or activation")
      for i in (2, 3)),
    (step(1, 4, 1), "step 1 is a norm, which takes no residual, gate or activation"),
    *((step(0, 5, code), f"step 0 is given code {code}, which is unknown") for code in (-1, 2)),
    *((step(1, 5, code), f"step 1 is given code {code}, which is unknown") for code in (-1, 4)),
    ({"outputs": []}, "outputs must name at least 1 register, but is empty"),
    *(({"outputs": out}, f"output register {out[-1]} must be one that a step makes, named once")
      for out in ([0], [1], [5], [-1], [4, 4], [2**40])),
    *(({"out_dtype": code}, f"out_dtype code {code} is unknown") for code in (-1, 3, 2**40)),
]  # fmt: skip


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("change", "error", "message"), TENSORS, ids=[t[2] for t in TENSORS])
def test_tensors(where: str, change: dict[str, Any], error: type, message: str) -> None:
    if where == "reference" and "tensors" in change:
        own = arguments(where)["tensors"]
        change = {"tensors": [own[i] if i in (0, 5) and i < len(own) and t.dtype == torch.uint8
                              else t for i, t in enumerate(change["tensors"])]}  # fmt: skip
    refused(where, change, error, message)


@pytest.mark.parametrize("where", ["public", "reference"])
@pytest.mark.parametrize(
    ("change", "name"),
    [({"inputs": [X, R.to("meta")]}, "inputs[1]"), (tensors(3, SCALE_UP.to("meta")), "weight"),
     (tensors(4, SCALE_UP.to("meta")), "bias"), (tensors(1, SCALE_UP.to("meta")), "scale_w")],
    ids=["inputs[1]", "weight", "bias", "scale_w"],
)  # fmt: skip
def test_tensors_on_another_device(where: str, change: dict[str, Any], name: str) -> None:
    """The fake would return tensors without values."""
    message = f"int8_rows: {name} is on meta, but the first argument on cpu"
    with pytest.raises(ValueError, match=re.escape(message)):
        call(where, arguments(where) | change)


@pytest.mark.parametrize("where", ["kernel", "reference", "fake"])
@pytest.mark.parametrize(("change", "message"), INTEGERS, ids=[f"{i} {t[1]}" for i, t in
                                                               enumerate(INTEGERS)])  # fmt: skip
def test_integers(where: str, change: dict[str, Any], message: str) -> None:
    refused(where, change, ValueError, message)


@pytest.mark.parametrize("where", ["public", "kernel", "reference"])
def test_what_only_the_packed_bytes_can_tell(where: str) -> None:
    pack = packing.pack_plain if where == "reference" else ops.int8_pack
    own = arguments(where)["tensors"]
    for change, message in (
        ({"tensors": [*own[:5], pack(DOWN[:, :-1].contiguous()), own[6]]},
         "the packed weight has K = 23, but the input's last dimension is 24"),
        ({"inputs": [X[:, :-1], R]},
         "the packed weight has K = 20, but the input's last dimension is 19"),
        ({"tensors": [*own[:5], pack(UP), own[6]]},
         "the packed weight has 24 output channels, but n is 12"),
    ):  # fmt: skip
        with pytest.raises((RuntimeError, ValueError), match=re.escape(message)):
            call(where, arguments(where) | change)


def test_hostile_programs_never_crash() -> None:
    """Random integers raise, or are a program: then every value of it is in bounds."""
    rng = torch.Generator().manual_seed(0)
    good = arguments("kernel")
    ran, messages = 0, []
    for _ in range(4000):
        steps = torch.tensor(good["steps"])
        for _ in range(int(torch.randint(1, 4, (), generator=rng))):
            at = int(torch.randint(len(steps), (), generator=rng))
            steps[at] = torch.randint(-3, 7, (), generator=rng)
        outputs = torch.randint(1, 6, (2,), generator=rng).tolist()
        try:
            out = call("kernel", good | {"steps": steps.tolist(), "outputs": outputs})
        except RuntimeError as error:
            messages.append(str(error))
            continue
        ran += 1
        own = [packing.pack_plain(ops.int8_unpack(t, *size)) for t, size in
               ((good["tensors"][0], (H, K)), (good["tensors"][5], (N, H)))]  # fmt: skip
        tensors = [own[0], *good["tensors"][1:5], own[1], good["tensors"][6]]
        for a, b in zip(out, int8_rows_reference([X, R], tensors, steps.tolist(), good["eps"],
                                                 outputs, 0), strict=True):  # fmt: skip
            assert torch.equal(a, b)
    assert ran > 20
    assert all("int8_rows: " in message for message in messages)


def test_the_public_function_alone() -> None:
    made, own = program(), arguments("public")["tensors"]
    with pytest.raises(ValueError, match="the program takes 2 inputs, but 1 are given"):
        ops.int8_rows(made, [X], own)
    message = f"int8_rows: out_dtype must be {FLOATS}, but is torch.int8"
    with pytest.raises(TypeError, match=re.escape(message)):
        ops.int8_rows(made, [X, R], own, out_dtype=torch.int8)
    with pytest.raises(ValueError, match=r"int8_rows: activation must be one of .* but is 'tanh'"):
        made.linear(0, activation="tanh")


@pytest.mark.parametrize("name", ["inputs", "tensors"])
def test_tensors_that_require_grad(name: str) -> None:
    given = arguments("public")
    given[name] = [t.clone().requires_grad_() if t.is_floating_point() else t for t in given[name]]
    with pytest.raises(ValueError, match="int8_rows is for inference: an argument requires grad"):
        call("public", given)
    with torch.no_grad():
        call("public", given)


def test_weights_of_another_layout() -> None:
    by_layout = {r.layout: r.name for r in backends.implementations("int8_gemm") if r.available}
    if len(by_layout) < 2:
        pytest.skip("this build has one layout only")
    (first, a), (second, b) = list(by_layout.items())[:2]
    with backends.force("int8_gemm", a):
        theirs = arguments("public")
    with backends.force("int8_gemm", b):
        own = arguments("public")
        message = f"the weight is packed as {first}, but kernel {b} takes {second}; pack it again"
        for given in (theirs, own | {"tensors": [*own["tensors"][:5], *theirs["tensors"][5:]]}):
            with pytest.raises(RuntimeError, match=re.escape(f"int8_rows: {message}")):
                call("public", given)
