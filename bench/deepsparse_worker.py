"""Runs one model in DeepSparse; ``peers/deepsparse.py`` starts it in DeepSparse's environment.

Every line read is a request in JSON, and gets one line. The first names the ONNX file ``model``,
the ``.npy`` files of its ``inputs``, the number of ``threads``, and the file to make for its
``output``, which stays mapped. Every request after it runs the model once, into that file, and is
answered with the ``seconds`` of the run. A failure is answered with ``error``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Answer until nobody asks any more."""
    # DeepSparse prints to the standard output, which the answers need for themselves.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    model: Model | None = None
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = {}
            if model is None:
                model = Model(**json.loads(line))
            else:
                answer["seconds"] = model.run()
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


class Model:
    """An engine with its inputs and the file of its output."""

    def __init__(self, model: str, inputs: list[str], threads: int, output: str) -> None:
        """Compile for the batch of the inputs.

        Raises:
            ValueError: more threads than cores, of which DeepSparse would silently use fewer.
        """
        import deepsparse
        import numpy
        from deepsparse.cpu import cpu_architecture

        cores = cpu_architecture().num_available_physical_cores
        if threads > cores:
            raise ValueError(f"{threads} threads, but DeepSparse has one a core, and finds {cores}")
        self.inputs = [numpy.load(file) for file in inputs]
        self.engine = deepsparse.Engine(model, batch_size=len(self.inputs[0]), num_cores=threads)
        (result,) = self.engine.run(self.inputs)
        self.output = numpy.lib.format.open_memmap(
            output, mode="w+", dtype=result.dtype, shape=result.shape
        )

    def run(self) -> float:
        """Run once and return the seconds; checking the inputs again is left out."""
        start = time.perf_counter()
        (self.output[...],) = self.engine.run(self.inputs, False)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
