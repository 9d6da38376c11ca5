"""What the OpenVINO peers share: the model as it is or after NNCF, compiled for this CPU."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from case import Call, Case, UnavailableError, as_model, calibration_of, require
from torch import Tensor, nn

PACKAGES = ("openvino", "nncf")

# Calibrating takes long; the peers and the shapes of one model share it.
_QUANTIZED: WeakKeyDictionary[nn.Module, Any] = WeakKeyDictionary()


def make(case: Case, precision: str) -> Call:
    """Return a request of the int8 model; what stays float runs in ``precision``: f32 or bf16.

    Raises:
        UnavailableError: a package is absent, or this CPU has no bf16.
    """
    require(PACKAGES)
    model, inputs = as_model(case)
    if model not in _QUANTIZED:
        _QUANTIZED[model] = quantized(model, calibration_of(case), case.kind.startswith("convnet"))
    return requested(_QUANTIZED[model], inputs, precision)


def make_float(case: Case, precision: str) -> Call:
    """Return a request of the float model in ``precision``: f32 or bf16.

    Raises:
        UnavailableError: the package is absent, or this CPU has no bf16.
    """
    require(PACKAGES[:1])
    model, inputs = as_model(case)
    with quiet():
        import openvino

        converted = openvino.convert_model(model, example_input=inputs)
    return requested(converted, inputs, precision)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what conversions say from the output."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def quantized(model: nn.Module, calibration: tuple[tuple[Tensor, ...], ...], convnet: bool) -> Any:
    """Return the ``openvino.Model`` after NNCF's quantization, for convnets or transformers."""
    with quiet():
        import nncf
        import openvino

        converted = openvino.convert_model(model, example_input=calibration[0])
        data = nncf.Dataset(calibration, lambda inputs: [x.contiguous().numpy() for x in inputs])
        return nncf.quantize(
            converted,
            data,
            model_type=None if convnet else nncf.ModelType.TRANSFORMER,
            subset_size=len(calibration),
        )


def compiled(model: Any, inputs: tuple[Tensor, ...], precision: str) -> Any:
    """Return the ``CompiledModel`` for exactly these shapes, for the latency of one request.

    Raises:
        UnavailableError: this CPU has no bf16.
    """
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
    return core.compile_model(fixed, "CPU", options)


def requested(model: Any, inputs: tuple[Tensor, ...], precision: str) -> Call:
    """Return a request of ``model`` that reads ``inputs`` and whose output is read where they lie.

    A tensor in another order than its shape says is copied once, before: OpenVINO would copy it in
    each request.
    """
    request = compiled(model, inputs, precision).create_infer_request()
    arrays = [x.contiguous().numpy() for x in inputs]

    def call() -> Tensor:
        return torch.from_numpy(request.infer(arrays, share_inputs=True, share_outputs=True)[0])

    return call
