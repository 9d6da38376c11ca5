"""int8, int4 and fused float layers for inference, pruned layers to train, and the registry."""

from .fused_conv2d import FusedConv1d, FusedConv2d
from .int4_linear import Int4Linear
from .int8_conv2d import Int8Conv1d, Int8Conv2d
from .int8_linear import Int8Linear
from .masked_conv import MaskedConv1d, MaskedConv2d
from .masked_linear import MaskedLinear
from .packed_conv import PackedConv
from .packed_float_conv import PackedFloatConv
from .packed_int4 import PackedInt4
from .packed_weight import PackedWeight, WeightOnlyInt8Weight
from .static_int8_linear import StaticInt8Linear
from .weight_only_int8_linear import WeightOnlyInt8Linear

__all__ = [
    "FusedConv1d",
    "FusedConv2d",
    "Int4Linear",
    "Int8Conv1d",
    "Int8Conv2d",
    "Int8Linear",
    "MaskedConv1d",
    "MaskedConv2d",
    "MaskedLinear",
    "PackedConv",
    "PackedFloatConv",
    "PackedInt4",
    "PackedWeight",
    "StaticInt8Linear",
    "WeightOnlyInt8Linear",
    "WeightOnlyInt8Weight",
]
