"""Attention between views of rows is one call in the graph of an exported model."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyops
from pyops import backends

HEADS, SIZE = 4, 16
ROWS, OTHER = "attention_rows", "scaled_dot_product_attention"


def heads(y, count=HEADS):
    return y.view(*y.shape[:-1], count, SIZE).transpose(1, 2)


def permuted(y):
    return y.reshape(y.shape[0], y.shape[1], HEADS, SIZE).permute(0, 2, 1, 3)


def rows(y):
    return y.transpose(1, 2).flatten(2)


def attend(q, k, v, **options):
    return rows(F.scaled_dot_product_attention(heads(q), heads(k), heads(v), **options))


def contiguous(q, k, v):
    y = F.scaled_dot_product_attention(permuted(q), permuted(k), permuted(v), scale=0.5)
    return y.permute(0, 2, 1, 3).contiguous().view(q.shape).contiguous()


def grouped(q, k, v):
    k, v = k[..., : 2 * SIZE], v[..., : 2 * SIZE]
    y = F.scaled_dot_product_attention(heads(q), heads(k, 2), heads(v, 2), enable_gqa=True)
    return y.transpose(1, 2).reshape(q.shape)


def last_query(q, k, v):
    return attend(q[:, -1:], k, v).expand(q.shape)


FORMS = {
    "transpose": attend,
    "permute": contiguous,
    "groups": grouped,
    "one query": last_query,
    "causal": lambda q, k, v: attend(q, k, v, is_causal=True),
    "scale": lambda q, k, v: attend(q, k, v, scale=0.1),
    "float mask": lambda q, k, v: attend(
        q, k, v, attn_mask=q[:, :1, :1, None] * k[:, None, None, :, 0]
    ),
}


def twice(q, k, v):
    y = F.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return rows(y) + y.mean()


def read_on_the_way(q, k, v):
    y = F.scaled_dot_product_attention(heads(q), heads(k), heads(v)).transpose(1, 2)
    return y.flatten(2) + y.mean()


def other_rows(q, k, v):
    y = F.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return y.transpose(1, 2).transpose(2, 3).flatten(2)


def not_swapped(q, k, v):
    wide = [y.view(*y.shape[:-1], HEADS, SIZE) for y in (q, k, v)]
    return F.scaled_dot_product_attention(*wide).flatten(2)


def split_tokens(q, k, v):
    """Of a view of another layout: heads lie after tokens of half the rows."""
    wide = [y.view(y.shape[0], -1, HEADS, SIZE // 2).transpose(1, 2) for y in (q, k, v)]
    return F.scaled_dot_product_attention(*wide).transpose(1, 2).reshape(q.shape)


def unbound(q, k, v):
    y = F.scaled_dot_product_attention(heads(q), heads(k), heads(v))
    return torch.cat(y.unbind(1), -1)


AS_WRITTEN = {
    "a list of heads": unbound,
    "result read twice": twice,
    "read on the way": read_on_the_way,
    "other rows": other_rows,
    "not swapped": not_swapped,
    "half tokens": split_tokens,
    "no heads at all": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "wide mask": lambda q, k, v: attend(
        q.double(), k.double(), v.double(), attn_mask=q.double()[:, None, :, :1]
    ).to(q.dtype),
}


class Model(nn.Module):
    def __init__(self, form, dtype):
        super().__init__()
        torch.manual_seed(0)
        width = HEADS * SIZE
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.form = form
        self.to(dtype)

    def forward(self, x, *, on=True):  # `on`: one-level tracing leaves it alone
        return self.out(self.form(self.q(x), self.k(x), self.v(x))) if on else x


def run(tools, form, dtype=torch.float32):
    model = Model(form, dtype)
    example = torch.randn(1, 5, HEADS * SIZE, generator=torch.Generator().manual_seed(1)).to(dtype)
    options = {"include": nn.Linear, "never_slower": False}
    fused = pyops.quantize(model, example_inputs=(example,), **options)
    plain = pyops.quantize(model, fuse=False, **options)
    called = []
    for rows_, tokens in ((1, 5), (1, 9), (3, 7), (2, 33)):
        x = torch.linspace(-2, 2, rows_ * tokens * HEADS * SIZE).mul(7).sin()
        x = x.reshape(rows_, tokens, HEADS * SIZE).to(dtype)
        with torch.no_grad(), tools.count() as calls:
            out = fused(x)
        called.append(calls)
        with torch.no_grad():
            tolerance = 2e-3 if dtype == torch.float32 else 5e-2  # a code more or less
            assert torch.allclose(out.float(), plain(x).float(), atol=tolerance, rtol=tolerance)
    return fused, called


needs_kernels = pytest.mark.skipif(
    not backends.compiled() or backends.kernel("attention") == "generic",
    reason="torch's attention is faster than the plain one",
)


@needs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_one_call(tools, form, dtype):
    fused, called = run(tools, form, dtype)
    assert all(calls.count(ROWS) == 1 and OTHER not in str(calls) for calls in called)
    assert "attention by pyops" in tools.notes(fused)["q"]


@needs_kernels
@pytest.mark.parametrize("form", AS_WRITTEN.values(), ids=AS_WRITTEN)
def test_anything_else_stays(tools, form):
    _, called = run(tools, form)
    assert all(ROWS not in calls for calls in called)


@needs_kernels
def test_dropout_stays(tools):
    model = Model(lambda q, k, v: attend(q, k, v, dropout_p=0.5), torch.float32)
    x = torch.randn(1, 5, HEADS * SIZE)
    fused = pyops.quantize(model, example_inputs=(x,), include=nn.Linear, never_slower=False)
    with torch.no_grad(), tools.count() as calls:
        assert not torch.equal(fused(x), fused(x))
    assert ROWS not in calls


def test_slow_kernels_leave_it_to_torch(tools):
    if not backends.compiled():
        pytest.skip("there is nothing to force without kernels")
    with backends.force("attention", "generic"):
        for form in FORMS.values():
            _, called = run(tools, form)
            assert all(ROWS not in calls for calls in called)
