"""int8 and int4 layers for inference, and the registry of what they replace."""

from .int4_linear import Int4Linear
from .int8_linear import Int8Linear
from .packed_int4 import PackedInt4
from .packed_weight import PackedWeight, WeightOnlyInt8Weight
from .weight_only_int8_linear import WeightOnlyInt8Linear

__all__ = [
    "Int4Linear",
    "Int8Linear",
    "PackedInt4",
    "PackedWeight",
    "WeightOnlyInt8Linear",
    "WeightOnlyInt8Weight",
]
