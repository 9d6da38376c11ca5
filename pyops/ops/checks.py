"""Argument checks shared by the public functions, the references and the fakes of several ops.

``csrc/checks`` makes the same checks with the same words before a pointer is touched.
"""

import torch
from torch import Tensor

from .epilogue import ACTIVATIONS
from .packing import MAX_K

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
FLOAT_NAMES = "torch.float32, torch.bfloat16 or torch.float16"


def no_grad(op: str, *tensors: Tensor | None) -> None:
    """Refuse tensors that require grad while grad mode is on."""
    if torch.is_grad_enabled():
        for t in tensors:
            if t is not None and t.requires_grad:
                raise ValueError(
                    f"{op} is for inference: an argument requires grad; "
                    "call it under torch.inference_mode() or torch.no_grad(), or detach() it"
                )


def floats(op: str, name: str, dtype: torch.dtype | None) -> None:
    if dtype not in FLOATS:
        raise TypeError(f"{op}: {name} must be {FLOAT_NAMES}, but is {dtype}")


def at_least_1d(op: str, name: str, tensor: Tensor) -> None:
    if tensor.dim() == 0:
        raise ValueError(f"{op}: {name} must have at least 1 dimension, but has 0")


def float_rows(op: str, name: str, x: Tensor) -> None:
    floats(op, name, x.dtype)
    at_least_1d(op, name, x)


def int8_weight(op: str, weight: Tensor) -> None:
    if weight.dtype != torch.int8:
        raise TypeError(f"{op}: weight must be torch.int8, but is {weight.dtype}")
    if weight.dim() != 2:
        raise ValueError(f"{op}: weight must be 2-D [N, K], but is {weight.dim()}-D")


def int8_pack(weight: Tensor) -> None:
    int8_weight("int8_pack", weight)
    if weight.shape[1] > MAX_K:
        raise ValueError(
            f"int8_pack: K is {weight.shape[1]}, but at most {MAX_K} is exact in int32"
        )


def packed(op: str, tensor: Tensor, pack: str = "int8_pack") -> None:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise TypeError(
            f"{op}: packed must be the 1-D torch.uint8 tensor that {pack} returns, "
            f"but is {tensor.dim()}-D {tensor.dtype}"
        )


def same_device(op: str, first: Tensor, **others: Tensor | None) -> None:
    """Also where one is on the meta device: its fake would return a tensor without values."""
    for name, tensor in others.items():
        if tensor is not None and tensor.device != first.device:
            raise ValueError(
                f"{op}: {name} is on {tensor.device}, but the first argument on {first.device}"
            )


def weight_shape(op: str, shape: torch.Size, n: int, k: int) -> None:
    if shape[0] != n:
        raise ValueError(f"{op}: the packed weight has {shape[0]} output channels, but n is {n}")
    if shape[1] != k:
        raise ValueError(
            f"{op}: the packed weight has K = {shape[1]}, but the input's last dimension is {k}"
        )


def channels(op: str, name: str, tensor: Tensor | None, n: int) -> None:
    if tensor is None:
        return
    if tensor.dtype != torch.float32:
        raise TypeError(f"{op}: {name} must be torch.float32, but is {tensor.dtype}")
    if tensor.dim() != 1 or tensor.shape[0] != n:
        raise ValueError(f"{op}: {name} must be [{n}], but is {list(tensor.shape)}")


def _rows(op: str, name: str, tensor: Tensor | None, dtype: torch.dtype, lead: torch.Size) -> None:
    if tensor is None:
        return
    if tensor.dtype != dtype:
        raise TypeError(f"{op}: {name} must be {dtype}, but is {tensor.dtype}")
    if tensor.numel() not in (1, lead.numel()):
        raise ValueError(
            f"{op}: {name} must have 1 element or {lead.numel()} (one per row), "
            f"but has {tensor.numel()}"
        )


def residual_shape(op: str, residual: Tensor | None, lead: torch.Size, n: int) -> None:
    if residual is None:
        return
    floats(op, "residual", residual.dtype)
    if residual.shape != (*lead, n):
        raise ValueError(f"{op}: residual must be {[*lead, n]}, but is {list(residual.shape)}")


def int8_gemm(
    a: Tensor,
    packed_weight: Tensor,
    n: int,
    scale_a: Tensor | None,
    zero_point_a: Tensor | None,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_dtype: torch.dtype,
) -> None:
    if a.dtype not in (torch.int8, torch.uint8):
        raise TypeError(f"int8_gemm: a must be torch.int8 or torch.uint8, but is {a.dtype}")
    at_least_1d("int8_gemm", "a", a)
    packed("int8_gemm", packed_weight)
    channel_count("int8_gemm", n)
    lead = a.shape[:-1]
    _rows("int8_gemm", "scale_a", scale_a, torch.float32, lead)
    _rows("int8_gemm", "zero_point_a", zero_point_a, torch.int32, lead)
    channels("int8_gemm", "scale_w", scale_w, n)
    channels("int8_gemm", "bias", bias, n)
    residual_shape("int8_gemm", residual, lead, n)
    same_device(
        "int8_gemm",
        a,
        packed=packed_weight,
        scale_a=scale_a,
        zero_point_a=zero_point_a,
        scale_w=scale_w,
        bias=bias,
        residual=residual,
    )
    operands = (scale_a, scale_w, bias, residual)
    if out_dtype == torch.int32 and any(t is not None for t in operands):
        raise ValueError("int8_gemm: out_dtype torch.int32 takes no scale, bias or residual")


def code(op: str, name: str, code: int, count: int) -> None:
    if not 0 <= code < count:
        raise ValueError(f"{op}: {name} code {code} is unknown")


def codes(op: str, activation: int, out_dtype: int, out_dtypes: int) -> None:
    """The integers that the dispatcher ops take for an activation and an output type."""
    code(op, "activation", activation, len(ACTIVATIONS))
    code(op, "out_dtype", out_dtype, out_dtypes)


def unknown_activation(op: str, activation: str) -> ValueError:
    return ValueError(f"{op}: activation must be one of {ACTIVATIONS}, but is {activation!r}")


def activations(op: str, *names: str) -> None:
    for name in names:
        if name not in ACTIVATIONS:
            raise unknown_activation(op, name)


def scale(op: str, name: str, value: float) -> None:
    float32 = torch.finfo(torch.float32)
    if not float32.tiny <= value <= float32.max:
        raise ValueError(f"{op}: {name} must be positive and finite, but is {value}")


def zero_point(op: str, name: str, value: int, dtype: torch.dtype) -> None:
    info = torch.iinfo(dtype)
    if not info.min <= value <= info.max:
        raise ValueError(f"{op}: {name} must be in [{info.min}, {info.max}], but is {value}")


def int8_gemm_output(
    activation: str,
    out_dtype: torch.dtype,
    out_scale: float,
    out_zero_point: int,
) -> None:
    if activation not in ACTIVATIONS:
        raise unknown_activation("int8_gemm", activation)
    if out_dtype == torch.int32 and activation != "none":
        raise ValueError(
            f"int8_gemm: out_dtype torch.int32 takes no activation, but {activation!r}"
        )
    if out_dtype not in (*FLOATS, torch.int8, torch.uint8, torch.int32):
        raise TypeError(
            f"int8_gemm: out_dtype must be {FLOAT_NAMES}, torch.int8, torch.uint8 or "
            f"torch.int32, but is {out_dtype}"
        )
    if out_dtype not in (torch.int8, torch.uint8):
        if out_scale != 1.0 or out_zero_point != 0:
            raise ValueError(
                "int8_gemm: out_scale and out_zero_point are for int8 and uint8 outputs, "
                f"but out_dtype is {out_dtype}"
            )
        return
    scale("int8_gemm", "out_scale", out_scale)
    zero_point("int8_gemm", "out_zero_point", out_zero_point, out_dtype)


def finite_scale(scale_a: Tensor | None, out_dtype: torch.dtype) -> None:
    """Refuse rows that an 8-bit output cannot express; needs the values."""
    if scale_a is None or out_dtype not in (torch.int8, torch.uint8):
        return
    if not bool(torch.isfinite(scale_a).all()):
        raise ValueError(
            "int8_gemm: scale_a holds NaN or Inf (a row of the input was not finite), "
            "which an 8-bit output cannot express"
        )


def channel_count(op: str, n: int) -> None:
    if n < 0:
        raise ValueError(f"{op}: n must be at least 0, but is {n}")


def scales(op: str, scale_w: Tensor) -> int:
    """The number of output channels."""
    if scale_w.dim() != 1:
        raise ValueError(f"{op}: scale_w must be 1-D [N], but is {scale_w.dim()}-D")
    return scale_w.shape[0]


def linear(
    op: str,
    x: Tensor,
    packed_weight: Tensor,
    scale_w: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    out_dtype: torch.dtype,
    *,
    pack: str = "int8_pack",
    n: int | None = None,
) -> int:
    """The number of output channels: ``n``, or where that is None as many as ``scale_w`` has."""
    float_rows(op, "x", x)
    floats(op, "out_dtype", out_dtype)
    packed(op, packed_weight, pack)
    if n is None:
        assert scale_w is not None
        n = scales(op, scale_w)
    channel_count(op, n)
    channels(op, "scale_w", scale_w, n)
    channels(op, "bias", bias, n)
    residual_shape(op, residual, x.shape[:-1], n)
    same_device(op, x, packed=packed_weight, scale_w=scale_w, bias=bias, residual=residual)
    return n
