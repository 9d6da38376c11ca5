"""What the ONNX Runtime peers share; they differ in what is done to the exported model."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import caps
import torch
from case import Call, Case, UnavailableError, as_model, calibration_of, require
from torch import nn

PACKAGES = ("onnxruntime", "onnx", "onnxscript")
OPSET = 17

# From the float file in a folder to the file that runs, which may be the same.
Convert = Callable[[Path, Case], Path]

# Calibrating takes long; the batches of one model share its files, for this run.
_FILES: WeakKeyDictionary[nn.Module, dict[Convert, Path]] = WeakKeyDictionary()
_FOLDERS: list[tempfile.TemporaryDirectory[str]] = []


def make(case: Case, convert: Convert) -> Call:
    """Return a run of the session; the output is read where it lies.

    Raises:
        UnavailableError: a package is absent, the model cannot be exported, or the peers are
            capped, which ONNX Runtime cannot be.
    """
    if caps.in_force():
        raise UnavailableError(
            "ONNX Runtime takes the best instructions there are: no cap holds it"
        )
    require(PACKAGES)
    _, inputs = as_model(case)
    session = session_of(file_of(case, convert), case)
    # A tensor in another order than its shape says would be copied in each run.
    arrays = [x.contiguous().numpy() for x in inputs]
    feed = {spec.name: x for spec, x in zip(session.get_inputs(), arrays, strict=True)}
    return lambda: torch.from_numpy(session.run(None, feed)[0])


def file_of(case: Case, convert: Convert) -> Path:
    """Return the file that runs; that of a convnet takes any batch and is made once."""
    if not case.kind.startswith("convnet"):
        return written(case, convert)
    assert case.model is not None
    files = _FILES.setdefault(case.model, {})
    if convert not in files:
        files[convert] = written(case, convert)
    return files[convert]


def written(case: Case, convert: Convert) -> Path:
    """Export the case's model into a folder of its own and convert it."""
    _FOLDERS.append(tempfile.TemporaryDirectory())
    file = Path(_FOLDERS[-1].name) / "float.onnx"
    model, inputs = as_model(case)
    options: dict[str, Any] = {}
    if case.kind.startswith("convnet"):
        options = {"input_names": ["x"], "dynamic_axes": {"x": {0: "batch"}}}
    with quiet():
        torch.onnx.export(model, inputs, str(file), dynamo=False, opset_version=OPSET, **options)
        return convert(file, case)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what the conversions say from the output."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def session_of(file: Path, case: Case) -> Any:
    """Return a session on torch's threads. The optimiser knows the shapes of the inputs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    if case.kind.startswith("convnet"):
        options.add_free_dimension_override_by_name("batch", case.inputs[0].shape[0])
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def as_it_is(file: Path, case: Case) -> Path:
    """Return the float file."""
    return file


def dynamic_int8(file: Path, case: Case) -> Path:
    """Quantize the Linears, whose inputs are quantized as they come."""
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    ready, out = file.with_name("ready.onnx"), file.with_name("int8.onnx")
    quant_pre_process(str(file), str(ready))
    quantize_dynamic(str(ready), str(out), weight_type=QuantType.QInt8, per_channel=True)
    return out


def static_int8(file: Path, case: Case) -> Path:
    """Calibrate by minimum and maximum: QDQ, uint8 activations, int8 weights by channel."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quant_pre_process,
        quantize_static,
    )

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(calibration_of(case))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"x": batch[0].contiguous().numpy()}

    ready, out = file.with_name("ready.onnx"), file.with_name("int8.onnx")
    quant_pre_process(str(file), str(ready))
    quantize_static(
        str(ready),
        str(out),
        Reader(),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    return out
