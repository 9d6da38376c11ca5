"""A small encoder written as large libraries do it, which one-level tracing cannot read.

Keywords are handed down through ``**options``, a config decides in the forward, a loop collects
states, and the result is a dict.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH, HIDDEN, HEADS, LAYERS, WORDS = 64, 96, 4, 2, 50


class RMSNorm(nn.Module):
    """Step by step, as in Llama models."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 1.5, width))
        self.eps = 1e-6

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(dtype)


class Block(nn.Module):
    """Attention and a feed-forward network on ``[B, T, WIDTH]``."""

    def __init__(self, config: SimpleNamespace) -> None:
        super().__init__()
        self.config = config
        self.query, self.key = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.value, self.project = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH)
        self.norm, self.last = nn.LayerNorm(WIDTH), RMSNorm(WIDTH)
        self.dropout = nn.Dropout(0.5)
        self.factor = 1.0

    def forward(self, x: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
        def heads(layer: nn.Module) -> Tensor:
            out: Tensor = layer(x)
            return out.view(*x.shape[:-1], HEADS, WIDTH // HEADS).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            heads(self.query), heads(self.key), heads(self.value), attn_mask=options.get("mask")
        )
        mixed = mixed.transpose(1, 2).reshape(x.shape)
        x = self.norm(self.dropout(self.project(mixed)) + x)
        hidden = getattr(F, self.config.activation)(self.up(x)) * self.factor
        return self.last(self.dropout(self.down(hidden)) + x), mixed


class KeywordEncoder(nn.Module):
    """Token ids int64 ``[B, T]``, and a mask of the same shape which is 0 on padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = SimpleNamespace(activation="gelu", sizes=[1, 2])
        self.words = nn.Embedding(WORDS, WIDTH)
        self.register_buffer("shift", torch.linspace(-1, 1, WIDTH))
        self.layers = nn.ModuleList(Block(self.config) for _ in range(LAYERS))

    def forward(
        self,
        ids: Tensor,
        mask: Tensor | None = None,
        *,
        scale: float = 1.0,
        states: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        x = self.words(ids) * scale + self.shift
        if mask is not None:
            options["mask"] = mask[:, None, None, :].to(torch.bool)
        collected = [x]
        for layer in self.layers:
            x, _ = layer(x, **options)
            collected.append(x)
        result = {"last": x, "mean": x.mean(1), "layers": LAYERS, "sizes": tuple(self.config.sizes)}
        return {**result, "states": tuple(collected)} if states else result
