"""The JSON plan inside a saved file: what ``load`` has to do. Every field is checked when read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .graph.net_float import FloatPlan
from .graph.net_forward import NetPlan
from .nn.record import Record
from .nn.registry import replacement_name

if TYPE_CHECKING:
    from .nn.packed_module import PackedModule

FORMAT = "pyops"
VERSION = "1"
_DTYPES = ("float32", "bfloat16", "float16", "float64")


def slots(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The tensors of one module, in the order of its state_dict."""
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield name, tensor


def key_of(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


@dataclass(frozen=True)
class LayerPlan:
    """One converted layer: its class, the float layer it replaces, its config and its record.

    ``config``: that of its packed weight (``PackedBase.config``), ``options``: its own
    (``PackedModule.options_of``); absent in older files.
    """

    cls: str
    before: str
    paths: list[str]
    dtype: str
    transposed: bool
    record: Record | None
    config: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, module: PackedModule, paths: list[str], record: Record | None) -> LayerPlan:
        built = "Conv1D" if module.transposed else "Linear"  # a layer that no workflow made
        before = record.before if record is not None else built
        dtype = str(module.dtype).removeprefix("torch.")
        name, config = type(module).__name__, module.packed.config()
        options = module.options_of()
        return cls(name, before, paths, dtype, module.transposed, record, config, options)


@dataclass
class Plan:
    """``classes``: of every module, by path. ``left``: records of layers that stay in float.

    ``aliases``: a name whose tensor is stored under another one. ``orders``: the order in which a
    tensor's dimensions lie in the file, where it is not that of its shape (channels_last).
    ``fuse``: whether layers were fused (``pyops.graph``). ``fused``: what runs in a layer's call.
    ``folded``: norms that are in the weights of a layer, with that layer. ``nets``: by path, what
    runs as one graph of int8 layers (``pyops.graph.net_forward``); ``apart``: why layers were
    converted one by one. ``masked``: masked layers, which have a tensor ``weight_mask`` more.
    ``channels``: by path, what ``prune_channels`` left of a module (``channel_plan``).
    All five are absent in older files.
    ``captured``: by path, what was captured as a whole, with its example's types and shapes.
    """

    classes: dict[str, str] = field(default_factory=dict)
    layers: dict[str, LayerPlan] = field(default_factory=dict)
    left: dict[str, Record] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    orders: dict[str, list[int]] = field(default_factory=dict)
    fuse: bool = False
    fused: dict[str, list[str]] = field(default_factory=dict)
    captured: dict[str, Any] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    nets: dict[str, NetPlan] = field(default_factory=dict)
    apart: dict[str, str] = field(default_factory=dict)
    masked: list[str] = field(default_factory=list)
    channels: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def read_plan(metadata: dict[str, str] | None) -> Plan:
    """The plan in a file's ``__metadata__``.

    Raises:
        ValueError: not a file of ours, another version, or a plan that is not well formed.
    """
    if not metadata or metadata.get("format") != FORMAT:
        raise ValueError("not a file that pyops.save wrote (no 'pyops' format in its metadata)")
    version = metadata.get("version")
    if version != VERSION:
        raise ValueError(f"format version is {version!r}, but this pyops reads {VERSION!r}")
    try:
        raw = json.loads(metadata["plan"])
        plan = Plan(
            classes=_map(raw, "classes", _string),
            layers=_map(raw, "layers", _layer),
            left=_map(raw, "left", _record),
            aliases=_map(raw, "aliases", _string),
            orders=_map(raw, "orders", _integers),
            fuse=_boolean(raw["fuse"]),
            fused=_map(raw, "fused", _strings),
            captured=_map(raw, "captured", dict),
            folded=_map(raw, "folded", _string) if "folded" in raw else {},
            nets=_map(raw, "nets", _net) if "nets" in raw else {},
            apart=_map(raw, "apart", _string) if "apart" in raw else {},
            masked=_strings(raw.get("masked", [])),
            channels=_map(raw, "channels", _object) if "channels" in raw else {},
        )
        if (plan.fused or plan.captured) and not plan.fuse:
            raise ValueError("layers are fused in a model that is not")
        return plan
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"damaged plan: {type(error).__name__}: {error}") from error


def _map(raw: Any, key: str, read: Any) -> dict[str, Any]:
    if not isinstance(raw, dict) or not isinstance(raw.get(key), dict):
        raise ValueError(f"{key!r} is not an object")
    return {name: read(value) for name, value in raw[key].items()}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{value!r} is not an object")
    return value


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a string")
    return value


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is not true or false")
    return value


def _strings(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"{value!r} is not a list of strings")
    return value


def _integers(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(item) is int for item in value):
        raise ValueError(f"{value!r} is not a list of integers")
    return value


def _net(value: Any) -> NetPlan:
    net = FloatPlan(**value) if "dtype" in value else NetPlan(**value)
    if isinstance(net, FloatPlan) and net.dtype not in ("", *_DTYPES):
        raise ValueError(f"a net of dtype {net.dtype!r}")
    for shape, dtype in net.inputs.values():
        if dtype not in _DTYPES or _integers(shape) != [abs(size) for size in shape]:
            raise ValueError(f"an input of a net is {shape} {dtype}")
    for scale, zero_point in net.edges.values():
        if type(zero_point) is not int or not 0 <= zero_point <= 255:
            raise ValueError(f"zero point {zero_point!r}")
        if type(scale) is not float or not 0 < scale < float("inf"):
            raise ValueError(f"scale {scale!r}")
    for group in net.islands:
        _strings(group)
    _strings(net.decisions)
    for path in net.folded.items():
        _strings(list(path))
    return net


def _record(value: Any) -> Record:
    record = Record(**value)
    _string(record.before), _string(record.reason)
    if type(record.bytes_before) is not int:
        raise ValueError(f"bytes_before is {record.bytes_before!r}")
    for number in (record.sqnr_db, record.ms_before, record.ms_after):
        if number is not None and not isinstance(number, (int, float)):
            raise ValueError(f"{number!r} is not a number")
    return record


def _layer(value: Any) -> LayerPlan:
    record = value.get("record")
    layer = LayerPlan(**{**value, "record": None if record is None else _record(record)})
    found = replacement_name(_string(layer.cls))
    if found is None:
        raise ValueError(f"unknown layer class {layer.cls!r}")
    if not isinstance(layer.config, dict) or not isinstance(layer.options, dict):
        raise ValueError(f"config {layer.config!r}, options {layer.options!r}")
    found.weight_class.shapes(0, 0, layer.config)
    if layer.dtype not in _DTYPES or not hasattr(torch, layer.dtype):
        raise ValueError(f"unknown dtype {layer.dtype!r}")
    if not isinstance(layer.paths, list) or not layer.paths or type(layer.transposed) is not bool:
        raise ValueError(f"config {value!r}")
    for path in (*layer.paths, layer.before):
        _string(path)
    return layer
