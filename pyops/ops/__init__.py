"""The ops, one module per stem: schema, reference in plain torch, fake, public function."""

from .attention import attention, attention_rows
from .epilogue import ACTIVATIONS
from .int8_gemm import int8_gemm, int8_pack, int8_unpack, quantize_rows, quantize_weight
from .int8_gemm_linear import int8_linear
from .int8_gemm_rows import RowProgram, int8_rows
from .weight_only import int4_linear, int8_weight_linear
from .weight_only_pack import (
    int4_pack,
    int4_unpack,
    int8_weight_pack,
    int8_weight_unpack,
    quantize_weight_int4,
)

__all__ = [
    "ACTIVATIONS",
    "RowProgram",
    "attention",
    "attention_rows",
    "int4_linear",
    "int4_pack",
    "int4_unpack",
    "int8_gemm",
    "int8_linear",
    "int8_pack",
    "int8_rows",
    "int8_unpack",
    "int8_weight_linear",
    "int8_weight_pack",
    "int8_weight_unpack",
    "quantize_rows",
    "quantize_weight",
    "quantize_weight_int4",
]
