"""What the torchao peers share; they differ in what runs the converted model."""

from __future__ import annotations

import copy
import importlib.util
import warnings

from case import Case, UnavailableError, as_model
from torch import Tensor, nn


def converted(case: Case) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the model after ``torchao.quantize_``, and its inputs.

    Raises:
        UnavailableError: torchao is absent or fails.
    """
    if importlib.util.find_spec("torchao") is None:
        raise UnavailableError("torchao is not installed; run: pip install --no-deps torchao")
    model, inputs = as_model(case)
    quantized = copy.deepcopy(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

            quantize_(quantized, Int8DynamicActivationInt8WeightConfig())
        except Exception as error:  # a foreign package may fail in any way; its text is the reason
            raise UnavailableError(f"torchao: {type(error).__name__}: {error}") from error
    return quantized, inputs
