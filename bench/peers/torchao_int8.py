"""torchao's dynamic int8 activations and int8 weights, in eager mode."""

from __future__ import annotations

import copy
import importlib.util
import warnings

from case import Call, Case, UnavailableError, as_model

NAME = "torchao"
KINDS = ("linear", "model")
SLOW = False


def make(case: Case) -> Call:
    """Return the model after ``torchao.quantize_``."""
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
    return lambda: quantized(*inputs)
