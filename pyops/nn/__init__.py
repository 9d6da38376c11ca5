"""int8 layers for inference, and the registry of what they replace."""

from .int8_linear import Int8Linear
from .packed_weight import PackedWeight

__all__ = ["Int8Linear", "PackedWeight"]
