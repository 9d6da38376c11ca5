"""What the torch FX peers share: static int8 by ``torch.ao.quantization``'s graph mode."""

from __future__ import annotations

import copy

from case import Call, Case, UnavailableError, as_model, calibration_of

from pyops.testing import torch_dynamic


def make(case: Case, engine: str) -> Call:
    """Return the int8 model with torch's default configuration for ``engine``.

    Raises:
        UnavailableError: this torch has no torch.ao quantization or not this engine.
    """
    model, inputs = as_model(case)
    try:
        with torch_dynamic.packing_for(engine):
            from torch.ao.quantization import get_default_qconfig_mapping
            from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

            mapping = get_default_qconfig_mapping(engine)
            prepared = prepare_fx(copy.deepcopy(model), mapping, inputs)
            for batch in calibration_of(case):
                prepared(*batch)
            quantized = convert_fx(prepared)
    except torch_dynamic.UnavailableError as error:
        raise UnavailableError(str(error)) from error
    return lambda: quantized(*inputs)
