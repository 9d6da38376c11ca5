"""What the OpenVINO peers share: NNCF's int8 of the model, and its compilation for this CPU."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from typing import Any
from weakref import WeakKeyDictionary

import torch
from case import Call, Case, UnavailableError, as_model
from torch import Tensor, nn

KINDS = ("linear", "model")
PACKAGES = ("openvino", "nncf")

# Calibrating takes long; the peers and the shapes of one model share it.
_QUANTIZED: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def make(case: Case, precision: str) -> Call:
    """Return a request of the int8 model; what stays float runs in ``precision``: f32 or bf16.

    Raises:
        UnavailableError: a package is absent, or this CPU has no bf16.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UnavailableError(f"not installed: {missing}; run: pip install {' '.join(PACKAGES)}")
    model, inputs = as_model(case)
    if model not in _QUANTIZED:
        _QUANTIZED[model] = quantized(model, case.calibration() if case.calibration else (inputs,))
    return compiled(_QUANTIZED[model], inputs, precision)


def quantized(model: nn.Module, calibration: tuple[tuple[Tensor, ...], ...]) -> Any:
    """Return the ``openvino.Model`` after NNCF's quantization for transformers."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            import nncf
            import openvino

            converted = openvino.convert_model(model, example_input=calibration[0])
            data = nncf.Dataset(calibration, lambda inputs: [x.numpy() for x in inputs])
            return nncf.quantize(
                converted,
                data,
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(calibration),
            )
    finally:
        logging.disable(logging.NOTSET)


def compiled(model: Any, inputs: tuple[Tensor, ...], precision: str) -> Call:
    """Return a request for exactly these shapes, tuned for the latency of one request."""
    import openvino

    fixed = model.clone()
    fixed.reshape({index: list(x.shape) for index, x in enumerate(inputs)})
    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    if precision == "bf16" and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UnavailableError("OpenVINO has no bf16 on this CPU")
    request = core.compile_model(fixed, "CPU", options).create_infer_request()
    arrays = [x.numpy() for x in inputs]

    def call() -> Tensor:
        return torch.from_numpy(request.infer(arrays, share_inputs=True, share_outputs=True)[0])

    return call
