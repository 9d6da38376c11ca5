"""torch's own dynamic int8, the closest peer of ``pyops.quantize``."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

ENGINES = ("x86", "onednn", "fbgemm")


class UnavailableError(RuntimeError):
    """This peer does not exist or does not work in this version of torch; says why."""


@contextmanager
def packing_for(name: str) -> Iterator[None]:
    """Weights that are packed inside are packed for engine ``name``: their kernel for good.

    Raises:
        UnavailableError: torch has no such engine, or no quantization at all.
    """
    supported = torch.backends.quantized.supported_engines
    if name not in supported:
        raise UnavailableError(f"torch has no engine {name!r}, only {list(supported)}")
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImportError, AttributeError, RuntimeError) as error:
        raise UnavailableError(f"torch {torch.__version__}: {error}") from error
    finally:
        torch.backends.quantized.engine = before


def quantize(model: nn.Module, engine: str = "x86") -> nn.Module:
    """Return a copy of ``model`` whose Linear layers are torch.ao dynamic int8 ones.

    Raises:
        UnavailableError: torch.ao.quantization or the engine is absent, or the conversion fails.
    """
    with packing_for(engine):
        from torch.ao.quantization import quantize_dynamic

        quantized: nn.Module = quantize_dynamic(  # type: ignore[no-untyped-call]
            copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8
        )
    return quantized
