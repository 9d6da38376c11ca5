"""What the benches of convnets share: one case per precision and batch, and the net's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from case import Call, Case, WrongResultError, sqnr_db
from conv_layers import layers_of
from torch import Tensor, nn

import pyops

SIZE, TINY_SIZE = 224, 64
BATCHES, TINY_BATCHES = (1, 8), (1, 2)
CALIBRATION_IMAGES = 32
# A result far below is a bug: int8 peers calibrate as they do by default, and lose what they lose.
LEAST_DB = {"int8": 12.0, "bf16": 18.0, "fp32": 60.0}
LEAST_DB_PEER = {"int8": 3.0, "bf16": 18.0, "fp32": 60.0}
MOST_DB = 200.0  # of a result that is exact
STEM = {"int8": "int8_conv_relu", "bf16": "conv_relu", "fp32": "conv_relu"}
WEIGHT_BYTES = {"int8": 1, "bf16": 2, "fp32": 4}
RIVALS = {
    "int8": {"int8 peers": ("torch FX int8", "onnxruntime int8", "openvino int8")},
    "fp32": {
        "torch eager": ("torch fp32",),
        "fp32 peers": ("torch.compile fp32", "onnxruntime fp32", "openvino fp32"),
    },
    "bf16": {"bf16 peers": ("torch bf16", "torch.compile bf16", "openvino bf16")},
}


@dataclass(frozen=True)
class Net:
    """A model, ``images(count, size)`` to run it on, and others to calibrate it with."""

    name: str
    model: nn.Module
    images: Callable[[int, int], Tensor]
    calibration: Callable[[int, int], Tensor]
    size: int = SIZE
    tiny_size: int = TINY_SIZE

    def cases(self, shapes: str, batches: tuple[int, ...]) -> Iterator[Case]:
        """Yield a case per batch and precision."""
        tiny = shapes == "tiny"
        size = self.tiny_size if tiny else self.size
        for batch in TINY_BATCHES if tiny else batches:
            for precision in STEM:
                yield self.case(precision, batch, size)

    def case(self, precision: str, batch: int, size: int) -> Case:
        """The net on ``batch`` images of ``size`` x ``size``; operations of its convolutions."""
        inputs = (self.images(batch, size),)
        exact = logits(self.model, inputs[0])
        layers = layers_of(self.model, inputs[0])
        weights = sum(p.numel() for p in self.model.parameters())

        def check(result: Tensor, least: float) -> None:
            found = sqnr_db(result, exact)
            if result.shape != exact.shape or not found >= least:
                raise WrongResultError(f"SQNR is {found:.1f} dB, expected at least {least} dB")

        def quality(result: Tensor) -> dict[str, float]:
            agree = (result.argmax(1) == exact.argmax(1)).double().mean().item()
            return {"SQNR dB": min(sqnr_db(result, exact), MOST_DB), "top-1 agrees": agree}

        def calibration() -> tuple[tuple[Tensor, ...], ...]:
            return tuple((x[None],) for x in self.calibration(CALIBRATION_IMAGES, size))

        return Case(
            kind=f"convnet {precision}",
            op=STEM[precision],
            peak=peak_of(precision),
            name=f"{self.name} {precision} {batch}x{size}",
            operations=2.0 * sum(layer.macs * count for layer, count in layers.items()),
            bytes_moved=float(weights * WEIGHT_BYTES[precision]),
            make_ours=lambda: self.ours(precision, inputs[0], calibration),
            check_ours=lambda result: check(result, LEAST_DB[precision]),
            check_peer=lambda result: check(result, LEAST_DB_PEER[precision]),
            quality=quality,
            model=self.model,
            inputs=inputs,
            calibration=calibration,
            rivals=RIVALS[precision],
        )

    def ours(
        self, precision: str, x: Tensor, calibration: Callable[[], tuple[tuple[Tensor, ...], ...]]
    ) -> Call:
        """Return the call of our model."""
        if precision == "int8":
            model = pyops.quantize(self.model, calibration=calibration())
        else:
            dtype = torch.bfloat16 if precision == "bf16" else None
            model = pyops.fuse(self.model, dtype=dtype, example_inputs=(x,))
        return lambda: model(x)


@torch.inference_mode()
def logits(model: nn.Module, x: Tensor) -> Tensor:
    """Return what the float model says."""
    out: Tensor = model(x)
    return out


def peak_of(precision: str) -> str | None:
    """Return the name of the float instruction that bounds, None for int8: its level decides."""
    level = pyops.isa.active()
    wide = level not in ("generic", "avx2", "avxvnni")
    if precision == "int8":
        return None
    if precision == "bf16" and wide:
        return "vdpbf16ps_zmm"
    return "fma_zmm" if wide else "fma_ymm"
