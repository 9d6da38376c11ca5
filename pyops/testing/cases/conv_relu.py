"""Random float convolutions with exact results, and how far a kernel may be off.

With u = 2^-24 a sum over K terms is within (K + 2) u (|x| conv |w|) of the exact one; a kernel with
bfloat16 products adds pairs at a time and flushes denormals, which K * 2^-126 more covers. For
Winograd's algorithm see ``_winograd_magnitude``. Bias and residual round once each; then the
activation, then the output type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pyops.ops import CONV_ACTIVATIONS, conv_relu, conv_relu_pack
from pyops.ops.conv_relu_packing import pack_plain
from pyops.ops.conv_relu_reference import conv_relu_reference
from pyops.ops.epilogue import CONV_ACTIVATION_CODE

DTYPES = (torch.float32, torch.bfloat16)
# Unit roundoff: half the distance from 1 to the next number.
ROUNDOFF = {torch.float32: 2.0**-24, torch.bfloat16: 2.0**-8}
# No activation is steeper (hardswish at 3; slopes are below it), and ours are within 1e-6 |v| of
# the exact ones (tests/ops/test_int8_gemm.py).
STEEPEST, ACTIVATION_ERROR = 1.5, 1e-6


@dataclass
class ConvCase:
    """Arguments of ``conv_relu``; ``padding``: top, bottom, left, right."""

    x: Tensor
    weight: Tensor
    groups: int = 1
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    bias: Tensor | None = None
    residual: Tensor | None = None
    activation: str = "none"
    low: float | None = None
    high: float | None = None
    slope: Tensor | None = None
    algorithm: str = "direct"

    @property
    def label(self) -> str:
        return (
            f"x{list(self.x.shape)} w{list(self.weight.shape)} {self.x.dtype} g{self.groups} "
            f"s{self.stride} p{self.padding} d{self.dilation} {self.activation} "
            f"{self.algorithm}"
        )

    def pack(self) -> Tensor:
        return conv_relu_pack(self.weight, self.groups, self.algorithm)

    def run(self, packed: Tensor | None = None) -> Tensor:
        """By the kernel that is active."""
        return conv_relu(
            self.x,
            self.pack() if packed is None else packed,
            self.weight.shape,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            bias=self.bias,
            residual=self.residual,
            activation=self.activation,
            low=self.low,
            high=self.high,
            slope=self.slope,
        )

    def reference(self) -> Tensor:
        return conv_relu_reference(
            self.x,
            pack_plain(self.weight, self.groups),
            list(self.weight.shape),
            list(self.stride),
            list(self.padding),
            list(self.dilation),
            self.bias,
            self.residual,
            CONV_ACTIVATION_CODE[self.activation],
            self.low or 0.0,
            self.high or 0.0,
            self.slope,
        )

    def sums(self, x: Tensor, weight: Tensor) -> Tensor:
        """Of the convolution in float64."""
        top, bottom, left, right = self.padding
        padded = F.pad(x.double(), (left, right, top, bottom))
        return F.conv2d(padded, weight.double(), None, self.stride, 0, self.dilation, self.groups)

    @property
    def tiles(self) -> bool:
        """Whether the call multiplies tiles of 2 x 2 outputs, not pixels."""
        if self.algorithm != "winograd":
            return False
        oh, ow = self.sums(self.x[:, :1], self.weight[:, :1]).shape[2:]
        return 48 * -(-oh // 2) * -(-ow // 2) <= 18 * oh * ow

    def _winograd_magnitude(self) -> Tensor:
        """A^T [(G w G^T) * (B^T d B)] A over magnitudes: of w, d and the three matrices."""
        data = torch.tensor([[1, 0, 1, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 0, 1]]).double()
        own = torch.tensor([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, 0.5, 0.5], [0, 0, 1]]).double()
        out = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).double()
        top, bottom, left, right = self.padding
        x = F.pad(self.x.double().abs(), (left, right + 1, top, bottom + 1))
        d = x.unfold(2, 4, 2).unfold(3, 4, 2)
        v, u = data @ d @ data.T, own @ self.weight.double().abs() @ own.T
        y = out @ torch.einsum("nchwij,ocij->nohwij", v, u) @ out.T
        image = y.permute(0, 1, 2, 4, 3, 5).flatten(4).flatten(2, 3)
        oh, ow = (n - 3 for n in x.shape[2:])
        return image[..., :oh, :ow]

    def exact(self) -> tuple[Tensor, Tensor]:
        """The result in float64, and the bound of the error."""
        v = self.sums(self.x, self.weight)
        u, k = ROUNDOFF[torch.float32], self.weight[0].numel()
        if self.tiles:
            bound = (self.x.shape[1] + 10) * u * self._winograd_magnitude()
        else:
            bound = (k + 2) * u * self.sums(self.x.abs(), self.weight.abs())
        bound = bound + k * 2.0**-126
        bias = None if self.bias is None else self.bias[:, None, None]
        for extra in (bias, self.residual):
            if extra is not None:
                v = v + extra.double()
                bound = bound + u * (v.abs() + extra.double().abs())
        result = self._activate(v)
        if self.activation != "none":
            bound = STEEPEST * bound + ACTIVATION_ERROR * v.abs() + 1e-38
        own = ROUNDOFF[self.x.dtype]
        return result, bound * (1 + 2 * own) + own * result.abs() + 2.0**-133

    def _activate(self, v: Tensor) -> Tensor:
        plain: dict[str, Callable[[Tensor], Tensor]] = {
            "none": lambda v: v,
            "relu": F.relu,
            "gelu": F.gelu,
            "gelu_tanh": lambda v: F.gelu(v, approximate="tanh"),
            "silu": F.silu,
            "hardswish": F.hardswish,
            "clamp": lambda v: torch.clamp(v, self.low, self.high),
        }
        if self.activation != "leaky_relu":
            return plain[self.activation](v)
        assert self.slope is not None
        return F.prelu(v, self.slope.double())


def conv_case(seed: int, dtype: torch.dtype | None = None) -> ConvCase:
    """A case that depends on its arguments alone; over many seeds every option comes up."""
    rng = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    dtype = DTYPES[pick(0, 1)] if dtype is None else dtype
    kind = pick(0, 3)  # 0, 1: dense, 2: groups, 3: depthwise
    groups = 1 if kind < 2 else pick(2, 4) if kind == 2 else pick(2, 70)
    cg = 1 if kind == 3 else pick(1, 36)
    ocg = 1 if kind == 3 else pick(1, 70 if kind < 2 else 20)
    size = 7 if pick(0, 3) == 0 else 3
    kernel = (pick(1, size), pick(1, size))
    stride, dilation = (pick(1, 3), pick(1, 3)), (1, 1)
    if pick(0, 3) == 0:
        dilation = (pick(1, 3), pick(1, 3))
    padding = tuple(pick(0, 3) if pick(0, 1) else 0 for _ in range(4))
    least = [
        max(1, dilation[0] * (kernel[0] - 1) + 1 - padding[0] - padding[1]),
        max(1, dilation[1] * (kernel[1] - 1) + 1 - padding[2] - padding[3]),
    ]
    h, w = (n + pick(0, 12) for n in least)
    x = tensor(pick(1, 3), groups * cg, h, w) * 2.0 ** (pick(0, 6) - 3)
    if pick(0, 3):
        x = x.contiguous(memory_format=torch.channels_last)
    case = ConvCase(x.to(dtype), tensor(groups * ocg, cg, *kernel).to(dtype), groups, stride)
    case.padding, case.dilation = (padding[0], padding[1], padding[2], padding[3]), dilation
    if pick(0, 1):
        case.bias = tensor(groups * ocg)
    case.activation = CONV_ACTIVATIONS[pick(0, len(CONV_ACTIVATIONS) - 1)]
    if case.activation == "clamp":
        case.low, case.high = -0.5, 6.0
    if case.activation == "leaky_relu":
        case.slope = tensor(groups * ocg if pick(0, 1) else 1).clamp(-1, 1)
    if pick(0, 2) == 0:
        case.residual = tensor(*case.sums(x, case.weight).shape).to(dtype)
    return case


def winograd_case(seed: int) -> ConvCase:
    """The same for weights that are packed for Winograd's algorithm."""
    rng = torch.Generator().manual_seed(seed)

    def pick(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=rng))

    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng)

    c, oc, h, w = pick(1, 70), pick(1, 70), pick(1, 19), pick(1, 19)
    x = tensor(pick(1, 3), c, h, w).contiguous(memory_format=torch.channels_last)
    case = ConvCase(x, tensor(oc, c, 3, 3), algorithm="winograd")
    top, left = pick(0, 3), pick(0, 3)
    case.padding = (top, max(pick(0, 3), 3 - h - top), left, max(pick(0, 3), 3 - w - left))
    case.bias = tensor(oc) if pick(0, 1) else None
    case.activation = ("none", "relu", "silu", "clamp")[pick(0, 3)]
    if case.activation == "clamp":
        case.low, case.high = -0.5, 6.0
    if pick(0, 1):
        case.residual = tensor(*case.sums(x, case.weight).shape)
    return case
