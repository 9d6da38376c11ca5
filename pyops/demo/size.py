"""How many bytes a model's weights take in memory."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn


def weight_bytes(model: nn.Module) -> int:
    """Return the bytes of all parameters, buffers and packed weights, shared ones once.

    Packed weights count with their padding and column sums. torch's own packed weights cannot be
    looked into: their int8 values, scales and biases count, not their padding.
    """
    sizes: dict[object, int] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        sizes[tensor.data_ptr() or id(tensor)] = tensor.numel() * tensor.element_size()
    for module in model.modules():
        packed = getattr(module, "packed", None)
        if packed is not None:
            sizes[id(packed)] = packed.nbytes
        sizes[id(module)] = sum(_torch_packed_bytes(module))
    return sum(sizes.values())


def _torch_packed_bytes(module: nn.Module) -> Iterator[int]:
    """Yield the sizes of the weight and bias that torch.ao's quantized Linear returns by method."""
    for name in ("weight", "bias"):
        method = getattr(module, name, None)
        if callable(method) and isinstance(tensor := method(), Tensor):
            yield tensor.numel() * tensor.element_size()
