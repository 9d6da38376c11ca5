"""Random int8 convolutions: geometry, groups, every kind of epilogue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyops.ops import CONV_ACTIVATIONS, int8_conv_pack, int8_conv_relu
from pyops.ops.conv_arguments import padding_of, pair
from pyops.ops.epilogue import CONV_ACTIVATION_CODE, OUT_DTYPE_CODE, OUT_DTYPES
from pyops.ops.int8_conv_packing import pack_conv_plain
from pyops.ops.int8_conv_relu_reference import int8_conv_relu_reference

from .int8_gemm import FLOATS, random_codes

CHANNELS = (1, 2, 3, 4, 5, 8, 12, 16, 17, 24, 32, 33, 64, 65, 68, 128)
GEOMETRY = ("stride", "padding", "dilation")
# In the order of the dispatcher's arguments.
DEFAULTS: dict[str, Any] = {
    "stride": 1,
    "padding": 0,
    "dilation": 1,
    "scale_x": 1.0,
    "zero_point_x": 0,
    "scale_w": None,
    "bias": None,
    "residual": None,
    "residual_scale": 1.0,
    "residual_zero_point": 0,
    "activation": "none",
    "low": 0.0,
    "high": 0.0,
    "slope": None,
    "out_dtype": torch.float32,
    "out_scale": 1.0,
    "out_zero_point": 0,
}


@dataclass
class ConvCase:
    """Codes ``x``, the plain ``weight``, and the other arguments of ``int8_conv_relu``."""

    x: Tensor
    weight: Tensor
    groups: int
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        shown = {
            key: value if not isinstance(value, Tensor) else f"{value.dtype}{list(value.shape)}"
            for key, value in self.options.items()
        }
        x = f"{self.x.dtype}{list(self.x.shape)}"
        return f"{x} * {list(self.weight.shape)} groups {self.groups} {shown}"

    @property
    def window(self) -> tuple[int, int]:
        return self.weight.shape[2], self.weight.shape[3]

    def run(self) -> Tensor:
        """By the kernel that is active."""
        packed = int8_conv_pack(self.weight, self.groups)
        return int8_conv_relu(self.x, packed, self.weight.shape, **self.options)

    def arguments(self, packed: Tensor) -> tuple[Any, ...]:
        """Those of the dispatcher's op."""
        o = DEFAULTS | self.options
        stride = pair("case", "stride", o["stride"], False, 1)
        dilation = pair("case", "dilation", o["dilation"], False, 1)
        padding = padding_of("case", o["padding"], self.window, stride, dilation, False)
        o["activation"] = CONV_ACTIVATION_CODE[o["activation"]]
        o["out_dtype"] = OUT_DTYPE_CODE[o["out_dtype"]]
        epilogue = [value for key, value in o.items() if key not in GEOMETRY]
        shape = list(self.weight.shape)
        return (self.x, packed, shape, stride, padding, dilation, *epilogue)

    def reference(self) -> Tensor:
        return int8_conv_relu_reference(*self.arguments(pack_conv_plain(self.weight, self.groups)))


class _Choices:
    def __init__(self, seed: int) -> None:
        self.rng = torch.Generator().manual_seed(seed)

    def below(self, count: int) -> int:
        return int(torch.randint(count, (), generator=self.rng))

    def of(self, values: tuple[Any, ...]) -> Any:
        return values[self.below(len(values))]

    def images(self, n: int, c: int, h: int, w: int, signed: bool) -> Tensor:
        extreme = self.of((0, 0, 0, 0, 0, 0, 1, 2))
        codes = random_codes(self.rng, n * c, h * w, signed, extreme) if h * w else None
        if codes is None:
            codes = torch.empty(0, dtype=torch.int8 if signed else torch.uint8)
        images = codes.reshape(n, c, h, w)
        return images if self.below(4) == 0 else images.to(memory_format=torch.channels_last)

    def zero_point(self, signed: bool) -> int:
        return self.below(256) - (128 if signed else 0)


def conv_case(seed: int, depthwise: bool = False) -> ConvCase:
    """A case that depends on its arguments alone; over many seeds every option comes up."""
    r = _Choices(seed)
    kh, kw = r.of((1, 1, 2, 3, 3, 3, 5, 7)), r.of((1, 1, 2, 3, 3, 3, 5, 7))
    stride = (r.of((1, 1, 1, 2, 3)), r.of((1, 1, 1, 2, 3)))
    dilation = (r.of((1, 1, 1, 2, 3)), r.of((1, 1, 1, 2, 3)))
    padding = tuple(r.below(kh * dilation[0] + 1) for _ in range(2)) + tuple(
        r.below(kw * dilation[1] + 1) for _ in range(2)
    )
    # The window fits at least once.
    h = max(1, dilation[0] * (kh - 1) + 1 - padding[0] - padding[1]) + r.of((0, 0, 1, 4, 9, 17))
    w = max(1, dilation[1] * (kw - 1) + 1 - padding[2] - padding[3]) + r.of((0, 1, 2, 5, 11, 30))
    groups = r.of((1, 1, 1, 1, 2, 3, 5))
    c, oc = r.of(CHANNELS), r.of(CHANNELS)
    if r.below(5) == 0 or depthwise:
        groups, c, oc = c, 1, c * (1 if depthwise else r.of((1, 1, 2)))
    else:
        oc *= groups
    signed = bool(r.below(2))
    n = r.of((0, 1, 1, 1, 2, 3))
    x = r.images(n, c * groups, h, w, signed)
    weight = random_codes(r.rng, oc, c * kh * kw, True, r.of((0, 0, 0, 0, 1, 2)))
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    options["zero_point_x"] = r.zero_point(signed) if r.below(4) else 0
    positions = [
        (size + before + after - d * (k - 1) - 1) // s + 1
        for size, before, after, d, k, s in (
            (h, padding[0], padding[1], dilation[0], kh, stride[0]),
            (w, padding[2], padding[3], dilation[1], kw, stride[1]),
        )
    ]
    _add_epilogue(r, options, (n, oc, *positions), c * kh * kw)
    return ConvCase(x, weight.reshape(oc, c, kh, kw), groups, options)


def _add_epilogue(r: _Choices, options: dict[str, Any], shape: tuple[int, ...], depth: int) -> None:
    out_dtype = r.of(OUT_DTYPES)
    options["out_dtype"] = out_dtype
    if out_dtype == torch.int32:
        return
    spread = 2.0 / (128.0 * depth**0.25)
    oc = shape[1]
    options["scale_x"] = float(torch.rand((), generator=r.rng)) * spread + 1e-6
    if r.below(8):
        options["scale_w"] = torch.rand(oc, generator=r.rng) * spread + 1e-6
    if r.below(2):
        options["bias"] = torch.randn(oc, generator=r.rng)
    if r.below(3) == 0:
        _add_residual(r, options, shape)
    activation = r.of(CONV_ACTIVATIONS)
    options["activation"] = activation
    if activation == "clamp":
        options["low"], options["high"] = r.of(((0.0, 6.0), (-1.0, 1.0), (0.5, 0.5)))
    if activation == "leaky_relu":
        options["slope"] = torch.rand(r.of((1, oc)), generator=r.rng) - 0.2
    if out_dtype in (torch.int8, torch.uint8):
        options["out_scale"] = float(torch.rand((), generator=r.rng)) * 0.1 + 1e-3
        options["out_zero_point"] = r.zero_point(out_dtype == torch.int8) if r.below(3) else 0
        if "scale_w" in options and r.below(2):
            _fold(options)


def _fold(options: dict[str, Any]) -> None:
    """Divides by the output's scale beforehand, as nets do."""
    scale = options.pop("out_scale")
    factor = options.pop("scale_x") / scale
    options["scale_w"] = options["scale_w"] * factor
    for name in ("low", "high", "residual_scale", "bias"):
        if name in options:
            options[name] = options[name] / scale


def _add_residual(r: _Choices, options: dict[str, Any], shape: tuple[int, ...]) -> None:
    n, oc, h, w = shape
    if r.below(2):
        options["residual"] = torch.randn(shape, generator=r.rng).to(FLOATS[r.below(3)])
        return
    signed = bool(r.below(2))
    options["residual"] = r.images(n, oc, h, w, signed)
    options["residual_scale"] = float(torch.rand((), generator=r.rng)) * 0.05 + 1e-4
    options["residual_zero_point"] = r.zero_point(signed)
