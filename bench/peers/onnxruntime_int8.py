"""ONNX Runtime: the exported float model after ``quantize_dynamic``, int8 weights by channel."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any

import caps
import torch
from case import Call, Case, UnavailableError, as_model
from torch import Tensor, nn

NAME = "onnxruntime int8"
KINDS = ("linear", "model")
SLOW = True
OWN_THREADS = True
PACKAGES = ("onnxruntime", "onnx", "onnxscript")


def make(case: Case) -> Call:
    """Return a run of the session; the output is read where it lies.

    Raises:
        UnavailableError: a package is absent, the model cannot be exported, or the peers are
            capped, which ONNX Runtime cannot be.
    """
    if caps.in_force():
        raise UnavailableError(
            "ONNX Runtime takes the best instructions there are: no cap holds it"
        )
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        raise UnavailableError(f"not installed: {missing}; run: pip install {' '.join(PACKAGES)}")
    model, inputs = as_model(case)
    session = session_of(model, inputs)
    feed = {spec.name: x.numpy() for spec, x in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def session_of(model: nn.Module, inputs: tuple[Tensor, ...]) -> Any:
    """Return a session on torch's threads. The optimiser knows the shapes of ``inputs``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    with tempfile.TemporaryDirectory() as folder:
        file = export(model, inputs, Path(folder))
        return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def export(model: nn.Module, inputs: tuple[Tensor, ...], folder: Path) -> str:
    """Write the quantized model into ``folder`` and return its path."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    steps = [str(folder / name) for name in ("float.onnx", "ready.onnx", "int8.onnx")]
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            torch.onnx.export(model, inputs, steps[0], dynamo=False, opset_version=17)
            quant_pre_process(steps[0], steps[1])
            quantize_dynamic(steps[1], steps[2], weight_type=QuantType.QInt8, per_channel=True)
    finally:
        logging.disable(logging.NOTSET)
    return steps[2]
