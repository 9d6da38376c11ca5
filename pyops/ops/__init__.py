"""The ops, one module per stem: schema, reference in plain torch, fake, public function."""

from .attention import attention
from .epilogue import ACTIVATIONS
from .int8_gemm import int8_gemm, int8_pack, int8_unpack, quantize_rows, quantize_weight
from .int8_gemm_linear import int8_linear, int8_linear_group, int8_mlp

__all__ = [
    "ACTIVATIONS",
    "attention",
    "int8_gemm",
    "int8_linear",
    "int8_linear_group",
    "int8_mlp",
    "int8_pack",
    "int8_unpack",
    "quantize_rows",
    "quantize_weight",
]
