"""DeepSparse: the exported float model in a process of its own environment, on its own threads.

The input is sent once, the output read where the process leaves it. The process takes the time: a
request costs some 0.2 ms beside the run, which wakes processes up and has nothing to do with it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy
import onnxruntime_runs
import torch
from case import Call, Case, UnavailableError, as_model, require
from foreign import Worker
from torch import Tensor

from pyops.testing.timing import Remote

NAME = "deepsparse"
KINDS = ("convnet fp32", "convnet pruned", "model pruned")
SLOW = True
OWN_THREADS = True

VARIABLE = "PYOPS_DEEPSPARSE_PYTHON"
SCRIPT = Path(__file__).resolve().parents[1] / "deepsparse_worker.py"
VARIABLES = {"NM_DISABLE_ANALYTICS": "1"}  # it would send reports


def make(case: Case) -> Call:
    """Return a request to a worker that has compiled the model.

    Raises:
        UnavailableError: the variable names no interpreter, or that one has no DeepSparse that
            works here on torch's number of threads.
    """
    python = os.environ.get(VARIABLE)
    if not python:
        raise UnavailableError(
            f"{VARIABLE} is not set; expected the python of an environment with "
            "requirements-deepsparse.txt"
        )
    require(("onnx",))
    file = onnxruntime_runs.file_of(case, onnxruntime_runs.as_it_is)
    worker = Worker(python, SCRIPT, VARIABLES)
    output = started(worker, file, as_model(case)[1])

    def run() -> float:
        seconds: float = worker.ask({})["seconds"]
        return seconds

    return Remote(run, output)


def started(worker: Worker, model: Path, inputs: tuple[Tensor, ...]) -> Tensor:
    """Give the worker its model and inputs; return the output, which each request writes anew."""
    with tempfile.TemporaryDirectory() as folder:
        files = [f"{folder}/{index}.npy" for index in range(len(inputs))]
        for name, x in zip(files, inputs, strict=True):
            numpy.save(name, x.contiguous().numpy())
        output = f"{folder}/output.npy"
        threads = torch.get_num_threads()
        worker.ask({"model": str(model), "inputs": files, "threads": threads, "output": output})
        # Both processes keep the mapping after the name is gone.
        return torch.from_numpy(numpy.load(output, mmap_mode="r+"))
