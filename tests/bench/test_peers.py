"""Peers: what each needs, what it computes, and references that do not use our op."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import pytest
import torch


def test_every_peer_is_well_formed(load: Any) -> None:
    peers: dict[str, ModuleType] = load("measure").discover("peers")
    assert {"torch_fp32", "torch_bf16", "torch_int_mm", "torchao_int8"} <= set(peers)
    names = [peer.NAME for peer in peers.values()]
    assert len(set(names)) == len(names)
    models = [load("models.resnet18"), load("models.pruned_resnet50")]
    benches = [*load("measure").discover("ops").values(), *models]
    kinds = {case.kind for bench in benches for case in bench.cases("tiny")}
    kinds |= set(load("models.pruned_minilm").KINDS.values())  # its cases need a package
    assert {"linear", "static_linear", "int32_gemm", "model"} <= kinds
    for module in peers.values():
        assert set(module.KINDS) <= kinds
        assert isinstance(module.SLOW, bool)
        assert callable(module.make)


def test_linear_reference_is_independent_of_the_op(load: Any) -> None:
    case = load("ops.int8_gemm").linear(5, 16, 7)
    exact = torch.nn.functional.linear(*(case.tensors[name] for name in ("x", "weight", "bias")))
    case.check_peer(exact)
    with pytest.raises(load("case").WrongResultError, match=r"SQNR is .* dB, expected at least 20"):
        case.check_peer(torch.randn_like(exact))
    with pytest.raises(load("case").WrongResultError, match="differs in"):
        case.check_ours(exact)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "onnxruntime_int8",
            r"not installed: \[.*\]; run: pip install onnxruntime onnx onnxscript",
        ),
        ("openvino_int8", r"not installed: \[.*\]; run: pip install openvino nncf"),
        ("openvino_int8_bf16", r"not installed: \[.*\]; run: pip install openvino nncf"),
        ("torchao_compiled", "torchao is not installed; run: pip install --no-deps torchao"),
    ],
)
def test_absent_peers_say_how_to_install_them(
    file: str, message: str, load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = load("ops.int8_gemm").linear(3, 16, 8)
    module = load(f"peers.{file}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(load("case").UnavailableError, match=message):
        module.make(case)


def test_onnxruntime_is_skipped_under_a_cap(load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    with pytest.raises(load("case").UnavailableError, match="no cap holds it"):
        load("peers.onnxruntime_int8").make(load("ops.int8_gemm").linear(3, 16, 8))


@pytest.mark.slow
@pytest.mark.parametrize(
    "file",
    [
        "onnxruntime_int8",
        "openvino_int8",
        "openvino_int8_bf16",
        "torchao_compiled",
        "torch_compile",
        "torch_compile_bf16",
    ],
)
def test_slow_peers_compute_the_layer(file: str, load: Any) -> None:
    case = load("ops.int8_gemm").mlp(3, 24, 40)
    try:
        call = load(f"peers.{file}").make(case)
    except load("case").UnavailableError as error:
        pytest.skip(str(error))
    case.check_peer(call())


@pytest.mark.parametrize("relu", [False, True])
def test_static_reference_is_independent_of_the_op(relu: bool, load: Any) -> None:
    case = load("ops.int8_static").static(5, 16, 7, relu)
    scales = case.static
    x, weight, bias = (case.tensors[name].double() for name in ("x", "weight", "bias"))
    out = (x - scales.zero_point_x) * scales.scale_x @ (weight * scales.scale_w[:, None]).T + bias
    steps = (out.relu() if relu else out) / scales.scale_out
    exact = (steps.round() + scales.zero_point_out).clamp(0, 255).to(torch.uint8)
    case.check_peer(exact)
    case.check_ours(case.make_ours()())
    wrong = load("case").WrongResultError
    with pytest.raises(wrong, match="is up to 3 steps off, expected at most 1"):
        case.check_peer((exact.int() + (3 if exact[0, 0] < 200 else -3)).to(torch.uint8))
    with pytest.raises(wrong, match=r"is torch.float32 \[5, 7\], expected torch.uint8 \[5, 7\]"):
        case.check_ours(exact.float())
