"""``attention_rows`` is ``attention`` on views of the rows, bit for bit; what it refuses."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyops import backends, ops
from pyops.ops.attention_reference import (
    attention_rows_fake,
    attention_rows_reference,
    heads_of,
)
from pyops.testing.cases.attention import FLOATS, MASKS, attention_case
from pyops.testing.compare import assert_same

SHAPES = (
    (1, 1, 1, 1, 1, 1),
    (2, 3, 3, 7, 9, 5),
    (2, 4, 2, 17, 65, 32),
    (1, 12, 12, 16, 16, 32),
    (1, 4, 1, 1, 700, 64),
    (3, 2, 2, 0, 4, 8),
    (1, 2, 2, 4, 0, 8),
)


def rows_of(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mask", MASKS)
def test_the_same_as_attention_on_views(kernel: str, dtype: torch.dtype, mask: str) -> None:
    for seed, shape in enumerate(SHAPES):
        case = attention_case(seed, shape, dtype, mask)
        rows = [rows_of(t) for t in (case.q, case.k, case.v)]
        out = ops.attention_rows(
            *rows, case.mask, head_size=shape[5], scale=case.scale, is_causal=case.is_causal
        )
        assert out.is_contiguous()
        assert_same(out, rows_of(case.run()), f"{kernel} {case.label}")
        plain = attention_rows_reference(*rows, case.mask, shape[5], case.by, case.is_causal)
        assert_same(plain, rows_of(case.reference()), f"reference {case.label}")


@pytest.mark.parametrize("dtype", FLOATS)
def test_strides(kernel: str, dtype: torch.dtype) -> None:
    case = attention_case(4, (2, 4, 4, 9, 9, 24), dtype)
    dense = [rows_of(t) for t in (case.q, case.k, case.v)]
    expected = ops.attention_rows(*dense, head_size=24)
    split = torch.cat(dense, -1).split(96, -1)
    columns = [t.mT.contiguous().mT for t in dense]
    apart = [torch.stack((t, t), -1)[..., 0] for t in dense]
    tokens_first = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in dense]
    for tensors in (split, columns, apart, tokens_first):
        out = ops.attention_rows(*tensors, head_size=24)
        assert_same(out, expected, f"{kernel} {tensors[0].stride()}")


Q, KV = torch.zeros(2, 6, 32), torch.zeros(2, 5, 16)
NAMES = "torch.float32, torch.bfloat16 or torch.float16"
BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("integers", {"q": Q.int()}, TypeError, f"q must be {NAMES}, but is torch.int32"),
    ("dtypes", {"v": KV.half()}, TypeError,
     "v must have the dtype of q, torch.float32, not torch.float16"),
    ("4-D", {"k": KV[None]}, ValueError, "k must be 3-D [B, T, H * D], but is 4-D"),
    ("no head", {"head_size": 0}, ValueError, "head_size must be at least 1, but is 0"),
    ("negative", {"head_size": -8}, ValueError, "head_size must be at least 1, but is -8"),
    ("not whole", {"k": KV[..., :12], "v": KV[..., :12]}, ValueError,
     "the rows of k have 12 columns, which is no multiple of head_size, 8"),
    ("batch", {"k": KV[:1]}, ValueError,
     "k must have the batch and head size of q, 2 and 8, but has 1 and 8"),
    ("v", {"v": KV[:, :4]}, ValueError,
     "v must have the shape of k, [2, 2, 5, 8], but is [2, 2, 4, 8]"),
    ("heads", {"q": Q[..., :24]}, ValueError,
     "the heads of q (3) must be a multiple of those of k (2)"),
    ("no kv heads", {"k": KV[..., :0], "v": KV[..., :0]}, ValueError,
     "the heads of q (4) must be a multiple of those of k (0)"),
    ("both", {"mask": torch.zeros(6, 5), "is_causal": True}, ValueError,
     "give either mask or is_causal=True, not both"),
    ("mask", {"mask": torch.zeros(5, 5)}, ValueError,
     "mask must broadcast to [2, 4, 6, 5], but is [5, 5]"),
    ("device", {"k": KV.to("meta")}, ValueError, "k is on meta, but q on cpu"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_refusals(given: dict[str, Any], error: type[Exception], message: str) -> None:
    call = {"q": Q, "k": KV, "v": KV, "mask": None, "head_size": 8, "is_causal": False} | given
    full = f"^{re.escape(f'attention_rows: {message}')}$"
    with pytest.raises(error, match=full):
        ops.attention_rows(**call)
    arguments = [call[name] for name in ("q", "k", "v", "mask", "head_size")]
    for plain in (attention_rows_reference, attention_rows_fake):
        with pytest.raises(error, match=full):
            plain(*arguments, 1.0, call["is_causal"])
    if backends.compiled() and call["k"].device.type == "cpu":
        with pytest.raises(RuntimeError, match=re.escape(f"attention_rows: {message[:20]}")):
            torch.ops.pyops.attention_rows(*arguments, 1.0, call["is_causal"])


@pytest.mark.parametrize("head_size", [None, "8", 8.0])
def test_head_sizes_that_are_no_integers_are_refused(head_size: Any) -> None:
    name = type(head_size).__name__
    with pytest.raises(
        TypeError, match=f"^attention_rows: head_size must be an int, but is {name}$"
    ):
        ops.attention_rows(Q, KV, KV, head_size=head_size)


def test_gradients_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^attention_rows is for inference: an argument requires"):
        ops.attention_rows(Q.clone().requires_grad_(), KV, KV, head_size=8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_schema_fake_and_compile(dtype: torch.dtype) -> None:
    case = attention_case(1, (2, 4, 2, 6, 7, 8), dtype, "float")
    rows = [rows_of(t) for t in (case.q, case.k, case.v)]
    for rest in ((case.mask, 8, 0.3, False), (None, 8, 0.3, True)):
        torch.library.opcheck(torch.ops.pyops.attention_rows.default, (*rows, *rest))

    class Block(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return ops.attention_rows(q * 2, k, v, head_size=8) + 1

    with torch.inference_mode():
        compiled = torch.compile(Block(), fullgraph=True, backend="aot_eager")
        assert_same(compiled(*rows), Block()(*rows), "compiled")


def test_heads_of_is_a_view() -> None:
    assert heads_of(Q, 8).data_ptr() == Q.data_ptr()
    assert heads_of(Q, 8).shape == (2, 4, 6, 8)
