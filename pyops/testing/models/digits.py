"""A small trained transformer on scikit-learn's 8x8 digits, with its held-out images, in one file.

The file ``pyops/data/digits.safetensors`` holds the weights (stored as fp16 to halve it; they are
read back as fp32) and the images and labels that training never saw. ``scripts/train_digits.py``
makes it. Data: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998
(CC BY 4.0), as shipped by ``sklearn.datasets.load_digits``.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

WIDTH = 256
HEADS = 4
HIDDEN = 384
DEPTH = 3
TOKENS = 16
CLASSES = 10
_WEIGHTS = "model."
_HELD_OUT = "held_out."


class Block(nn.Module):
    """Pre-norm transformer encoder block on ``[B, T, WIDTH]``."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(WIDTH)
        self.query_key_value = nn.Linear(WIDTH, 3 * WIDTH)
        self.project = nn.Linear(WIDTH, WIDTH)
        self.mlp_norm = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, HIDDEN)
        self.down = nn.Linear(HIDDEN, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self._attend(self.attention_norm(x))
        x = x + self.down(F.gelu(self.up(self.mlp_norm(x))))
        return x

    def _attend(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        heads = self.query_key_value(x).view(batch, tokens, 3, HEADS, width // HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.project(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return out


class DigitsTransformer(nn.Module):
    """Classifies 8x8 images: 16 overlapping 4x4 patches, one block ``DEPTH`` times, mean, head.

    The block's weights are shared over the depth (as in ALBERT, arXiv:1909.11942), so layers are
    wide enough for int8 to matter while the file stays below a megabyte.
    """

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(16, WIDTH)
        self.positions = nn.Parameter(torch.zeros(TOKENS, WIDTH))
        self.block = Block()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, 10]`` for ``images [B, 8, 8]`` with pixels 0..16 of any dtype."""
        pixels = images.to(self.positions.dtype) / 8 - 1
        patches = F.pad(pixels, (1, 1, 1, 1), value=-1.0).unfold(1, 4, 2).unfold(2, 4, 2)
        x = self.embed(patches.reshape(-1, TOKENS, 16)) + self.positions
        for _ in range(DEPTH):
            x = self.block(x)
        logits: Tensor = self.head(self.norm(x).mean(dim=1))
        return logits


def path() -> Path:
    """Return where the shipped file lies."""
    return Path(str(resources.files("pyops") / "data" / "digits.safetensors"))


def pack(model: DigitsTransformer, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Return the tensors of the shipped file: fp16 weights, ``images`` and ``labels`` as uint8."""
    tensors = {_WEIGHTS + name: t.half().contiguous() for name, t in model.state_dict().items()}
    tensors[_HELD_OUT + "images"] = images.to(torch.uint8).contiguous()
    tensors[_HELD_OUT + "labels"] = labels.to(torch.uint8).contiguous()
    return tensors


def load_model(file: Path | None = None) -> DigitsTransformer:
    """Return the trained model in fp32 and eval mode."""
    tensors = load_file(file or path())
    model = DigitsTransformer()
    weights = {k.removeprefix(_WEIGHTS): v for k, v in tensors.items() if k.startswith(_WEIGHTS)}
    model.load_state_dict(weights)
    return model.eval()


def load_held_out(file: Path | None = None) -> tuple[Tensor, Tensor]:
    """Return the held-out images, uint8 ``[n, 8, 8]``, and labels, int64 ``[n]``."""
    tensors = load_file(file or path())
    return tensors[_HELD_OUT + "images"], tensors[_HELD_OUT + "labels"].long()


@torch.inference_mode()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of ``images [n, 8, 8]`` that ``model`` classifies as ``labels [n]``."""
    return float((model(images).argmax(dim=1) == labels).double().mean())
