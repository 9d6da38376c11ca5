"""Attention as users and torch meet it: errors, fakes, compile, export, and its place in graphs."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from pyops import backends, ops
from pyops.graph import attention as graph
from pyops.ops.attention_reference import attention_fake, attention_reference
from pyops.testing.cases.attention import attention_case
from pyops.testing.compare import assert_same, assert_within

Q, KV = torch.zeros(2, 4, 6, 8), torch.zeros(2, 2, 5, 8)
FLOATS = "torch.float32, torch.bfloat16 or torch.float16"

BAD: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("integers", {"q": Q.int()}, TypeError, f"q must be {FLOATS}, but is torch.int32"),
    (
        "two dtypes",
        {"k": KV.half()},
        TypeError,
        "k must have the dtype of q, torch.float32, not torch.float16",
    ),
    ("3-D q", {"q": Q[0]}, ValueError, "q must be 4-D [B, H, T, D], but is 3-D"),
    ("5-D v", {"v": KV[None]}, ValueError, "v must be 4-D [B, H, T, D], but is 5-D"),
    (
        "no head size",
        {"q": Q[..., :0], "k": KV[..., :0], "v": KV[..., :0]},
        ValueError,
        "the head size must be at least 1, but is 0",
    ),
    (
        "batch",
        {"k": KV[:1]},
        ValueError,
        "k must have the batch and head size of q, 2 and 8, but has 1 and 8",
    ),
    (
        "head size",
        {"k": KV[..., :7]},
        ValueError,
        "k must have the batch and head size of q, 2 and 8, but has 2 and 7",
    ),
    (
        "v",
        {"v": KV[:, :, :4]},
        ValueError,
        "v must have the shape of k, [2, 2, 5, 8], but is [2, 2, 4, 8]",
    ),
    (
        "heads",
        {"q": Q[:, :3]},
        ValueError,
        "the heads of q (3) must be a multiple of those of k (2)",
    ),
    (
        "mask and causal",
        {"mask": torch.zeros(6, 5), "is_causal": True},
        ValueError,
        "give either mask or is_causal=True, not both",
    ),
    (
        "integer mask",
        {"mask": torch.zeros(6, 5, dtype=torch.int64)},
        TypeError,
        f"mask must be torch.bool, {FLOATS}, but is torch.int64",
    ),
    (
        "mask shape",
        {"mask": torch.zeros(5, 5)},
        ValueError,
        "mask must broadcast to [2, 4, 6, 5], but is [5, 5]",
    ),
    (
        "mask of 5 dimensions",
        {"mask": torch.zeros(1, 1, 1, 6, 5)},
        ValueError,
        "mask must broadcast to [2, 4, 6, 5], but is [1, 1, 1, 6, 5]",
    ),
    ("meta k", {"k": KV.to("meta")}, ValueError, "k is on meta, but q on cpu"),
    (
        "meta mask",
        {"mask": torch.zeros(6, 5, device="meta")},
        ValueError,
        "mask is on meta, but q on cpu",
    ),
]


@pytest.mark.parametrize(
    ("given", "error", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_refusals(given: dict[str, Any], error: type[Exception], message: str) -> None:
    call = {"q": Q, "k": KV, "v": KV, "mask": None, "is_causal": False} | given
    full = f"^{re.escape(f'attention: {message}')}$"
    with pytest.raises(error, match=full):
        ops.attention(**call)
    for plain in (attention_reference, attention_fake):
        with pytest.raises(error, match=full):
            plain(call["q"], call["k"], call["v"], call["mask"], 1.0, call["is_causal"])
    tensors = [t for t in call.values() if isinstance(t, Tensor)]
    if backends.compiled() and all(t.device.type == "cpu" for t in tensors):
        start = re.escape(f"attention: {message[:24]}")
        with pytest.raises(RuntimeError, match=start):
            torch.ops.pyops.attention(
                call["q"], call["k"], call["v"], call["mask"], 1.0, call["is_causal"]
            )


def test_gradients_are_refused_with_the_way_out() -> None:
    message = (
        "attention is for inference: an argument requires grad; "
        "call it under torch.inference_mode() or torch.no_grad(), or detach() it"
    )
    for name in ("q", "k", "v", "mask"):
        call = {"q": Q, "k": KV, "v": KV, "mask": torch.zeros(6, 5)}
        call[name] = call[name].clone().requires_grad_()
        with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
            ops.attention(**call)
        with torch.no_grad():
            ops.attention(**call)


def test_empty_problems() -> None:
    for shape in ((0, 4, 6, 8), (2, 0, 6, 8), (2, 4, 0, 8)):
        q = torch.zeros(shape)
        kv = torch.zeros(shape[0], shape[1], 5, 8)
        assert ops.attention(q, kv, kv).shape == shape


def test_returns_new_tensors() -> None:
    first = attention_case(1, (1, 2, 2, 20, 30, 16)).run()
    kept = first.clone()
    attention_case(2, (1, 2, 2, 20, 30, 16)).run()
    assert_same(first, kept, "scratch is kept, results are not")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_schema_and_fake_agree_with_the_kernels(dtype: torch.dtype) -> None:
    case = attention_case(1, (2, 4, 2, 6, 7, 8), dtype, "float")
    arguments = (case.q, case.k, case.v)
    for rest in ((case.mask, 0.3, False), (None, 0.3, True)):
        torch.library.opcheck(torch.ops.pyops.attention.default, (*arguments, *rest))


class Block(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return ops.attention(q * 2, k, v, mask).transpose(1, 2).flatten(2) + 1


def test_compile_and_export_without_a_graph_break() -> None:
    case = attention_case(1, (2, 4, 2, 6, 7, 8), mask="bool")
    inputs = (case.q, case.k, case.v, case.mask)
    model = Block()
    with torch.inference_mode():
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        assert_same(compiled(*inputs), model(*inputs), "compiled")
    with torch.no_grad():
        exported = torch.export.export(model, inputs)
    assert_same(exported.module()(*inputs), model(*inputs), "exported")
    assert "pyops.attention.default" in {str(node.target) for node in exported.graph.nodes}


def traced(dropout: float = 0.0) -> fx.GraphModule:
    class Model(nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor, m: Tensor) -> Tensor:
            plain = F.scaled_dot_product_attention(q, k, v, m, dropout)
            return plain + F.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=0.5)

    return fx.symbolic_trace(Model())


def test_graphs_run_it_where_torch_did(monkeypatch: pytest.MonkeyPatch) -> None:
    case = attention_case(1, (2, 4, 4, 6, 7, 8), mask="float")
    inputs = (case.q, case.k, case.v, case.mask)
    module = traced()
    want = module(*inputs)
    assert len(graph.fuse_attention(module.graph)) == 2
    module.recompile()
    calls = []
    monkeypatch.setattr(graph, "slower", lambda q, k: None)
    monkeypatch.setattr(
        graph, "attention", lambda *a, **k: calls.append(a) or ops.attention(*a, **k)
    )
    with torch.inference_mode():
        out = module(*inputs)
    assert len(calls) == 2
    assert_within(out, want, torch.full_like(want, 1e-5), "fused")
    wide = [t.double() for t in inputs]
    assert_same(module(*wide), traced()(*wide), "torch's own where ours does not apply")
    assert len(calls) == 2


def test_a_node_with_dropout_stays() -> None:
    assert len(graph.fuse_attention(traced(0.1).graph)) == 1


def test_reasons_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "slower", lambda q, k: None)
    q, k = Q, Q[:, :, :5]
    mask = torch.zeros(6, 5)
    reasons = {
        "dropout": graph.why_torch(q, k, k, dropout_p=0.1),
        "tensors on meta, ours is for the CPU": graph.why_torch(*[q.to("meta")] * 3),
        "an input requires grad, ours is for inference": graph.why_torch(
            q.clone().requires_grad_(), k, k
        ),
        "dtypes torch.float64, torch.float64, torch.float64": graph.why_torch(*[q.double()] * 3),
        "tensors that are not 4-D": graph.why_torch(q[0], k[0], k[0]),
        "shapes [2, 4, 6, 8], [2, 4, 5, 8], [2, 4, 5, 3]": graph.why_torch(q, k, k[..., :3]),
        "4 heads on 2": graph.why_torch(q, KV, KV),
        "a mask together with is_causal": graph.why_torch(q, k, k, mask, is_causal=True),
        "a mask of torch.float16 [6, 5]": graph.why_torch(q, k, k, mask.half()),
        "a mask of torch.float32 [5, 5]": graph.why_torch(q, k, k, mask[:5]),
    }
    assert {found: found for found in reasons.values()} == {reason: reason for reason in reasons}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert graph.why_torch(q, k, k) == "autocast decides by function"
    assert graph.why_torch(q, KV, KV, enable_gqa=True) is None
    assert graph.why_torch(q, k, k, mask) is None
    assert graph.why_torch(q, k, k, mask > 0) is None


def test_slow_kernels_leave_it_to_torch() -> None:
    if not backends.compiled():
        assert graph.slower(Q, KV) == "torch is faster than the reference kernel"
        return
    with backends.force("attention", "generic"):
        assert graph.slower(Q, KV) == "torch is faster than the generic kernel"
    available = {row.name for row in backends.implementations("attention") if row.available}
    if "avx2" not in available:
        return
    big = torch.zeros(1, 12, 128, 32)
    with backends.force("attention", "avx2"):
        few = "torch is faster below 262144 multiply-adds in float32"
        assert graph.slower(big[:, :, :16], big[:, :, :16]) == few
        assert graph.slower(big, big) is None
        half = big.bfloat16()
        amx = "torch multiplies bfloat16 with AMX, the avx2 kernel does not"
        assert graph.slower(half, half) == (amx if "amx" in available else None)
        assert graph.slower(half[:, :, :1], half) is None
    if "amx" in available:
        with backends.force("attention", "amx"):
            assert graph.slower(half, half) is None
