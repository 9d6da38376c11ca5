"""transformers models as one graph: tiny random ones, and MiniLM's weights where they are there."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import pyops
from pyops.testing.models import packages
from pyops.testing.models.minilm import WEIGHTS_PACKAGE, WORDS, random_batch

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

SIZES = {
    "vocab_size": 100,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 40,
}
# A sum in another order may move an int8 code of the next layer by a step.
CLOSE = 2e-2


def bert():
    return transformers.BertModel(transformers.BertConfig(**SIZES))


def distilbert():
    config = transformers.DistilBertConfig(
        vocab_size=100, dim=64, n_layers=2, n_heads=4, hidden_dim=128, max_position_embeddings=40
    )
    return transformers.DistilBertModel(config)


def roberta():
    return transformers.RobertaModel(transformers.RobertaConfig(**SIZES))


def vit():
    sizes = {name: SIZES[name] for name in list(SIZES)[1:5]}
    return transformers.ViTModel(transformers.ViTConfig(image_size=32, patch_size=8, **sizes))


def gpt2():
    config = transformers.GPT2Config(vocab_size=100, n_positions=40, n_embd=64, n_layer=2, n_head=4)
    return transformers.GPT2LMHeadModel(config)


def llama():
    config = transformers.LlamaConfig(num_key_value_heads=2, **SIZES)
    return transformers.LlamaForCausalLM(config)


MODELS = [bert, distilbert, roberta, vit, gpt2, llama]
QUERIES = {
    bert: "encoder.layer.1.attention.self.query",
    distilbert: "transformer.layer.1.attention.q_lin",
    roberta: "encoder.layer.1.attention.self.query",
    vit: "layers.1.attention.q_proj",
    llama: "model.layers.1.self_attn.q_proj",
}


def call(make, rows, tokens, mask="full"):
    if make is vit:
        pixels = torch.linspace(-1, 1, rows * 3 * 32 * 32).mul(9 * tokens).sin()
        return {"pixel_values": pixels.reshape(rows, 3, 32, 32)}
    ids = (torch.arange(rows * tokens).reshape(rows, tokens) * 7 + tokens) % 90 + 5
    ones = torch.ones_like(ids)
    if mask == "right":
        ones[-1, tokens // 2 + 1 :] = 0
    elif mask == "left":
        ones[-1, : tokens // 2] = 0
    more = {"use_cache": False} if make in (gpt2, llama) else {}
    return {"input_ids": ids, "attention_mask": ones, **more}


def quantized(make, example=True, **options):
    torch.manual_seed(0)
    model = make().eval()
    if make is not gpt2:
        options["include"] = nn.Linear
    if example:
        options.update(example_inputs=call(make, 1, 8), never_slower=False)
    return pyops.quantize(model, **options)


@pytest.fixture(scope="module", params=MODELS, ids=lambda make: make.__name__)
def models(request):
    """(how it is made, captured, fused module by module, not fused)"""
    make = request.param
    return make, quantized(make), quantized(make, False), quantized(make, False, fuse=False)


def ran(model, arguments):
    """What a call returns, and why the graph did not run, if so."""
    before = set(model.forward.logged)
    with torch.no_grad():
        out = model(**arguments)
    return out, model.forward.logged - before


def close(a, b, tolerance):
    assert type(a) is type(b)
    assert list(a) == list(b)
    for name in a:
        assert (a[name] - b[name]).abs().max() <= tolerance * b[name].abs().max(), name
    return True


def ending(notes, end):
    found = [value for path, value in notes.items() if path.endswith(end)]
    assert len(found) == 2
    return found


def test_what_is_fused(models):
    make, model, _, _ = models
    notes = pyops.graph.fusions_of(model).notes
    [graphs] = pyops.explain(model).graphs
    assert graphs.startswith(f"{type(model).__name__}.forward runs as one graph for ")
    if make in QUERIES:  # in GPT-2 the three are one layer
        [merged] = [note for note in notes[QUERIES[make]] if note.startswith("one call with")]
        assert merged.count(".1.") == 2
    gelus = {bert: "intermediate.dense", roberta: "intermediate.dense", distilbert: "ffn.lin1"}
    gelus |= {vit: "mlp.fc1"}
    if make in gelus:
        assert all("gelu" in found for found in ending(notes, gelus[make]))
    elif make is gpt2:
        assert all("gelu_tanh" in found for found in ending(notes, "mlp.c_fc"))
    else:
        assert all("silu" in found for found in ending(notes, "mlp.gate_proj"))
    ends = {bert: "output.dense", roberta: "output.dense", distilbert: "out_lin"}
    ends |= {vit: "o_proj", gpt2: "attn.c_proj", llama: "o_proj"}
    residuals = [value for path, value in notes.items() if path.endswith(ends[make])]
    assert residuals
    assert all("residual" in found for found in residuals)


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize("tokens", [2, 8, 31])
@pytest.mark.parametrize("mask", ["full", "right", "left"])
def test_results(models, rows, tokens, mask):
    make, model, by_module, unfused = models
    if make is vit and (mask != "full" or tokens != 8):
        pytest.skip("images have no mask and no length")
    arguments = call(make, rows, tokens, mask)
    out, why = ran(model, arguments)
    assert not why
    with torch.no_grad():
        assert close(out, by_module(**arguments), CLOSE)
        assert close(out, unfused(**arguments), CLOSE)


def test_without_a_mask(models):
    make, model, _, unfused = models
    arguments = call(make, 2, 8)
    if arguments.pop("attention_mask", None) is None:
        pytest.skip("images have no mask")
    out, why = ran(model, arguments)
    assert why <= {"attention_mask is not what it is in the example"}  # logged once
    with torch.no_grad():
        assert close(out, unfused(**arguments), CLOSE)


def test_rms_norms_of_llama():
    sources = [graph.variant.source for graph in quantized(llama).forward.graphs]
    for source in sources:
        assert "torch.rsqrt" not in source


def test_copies_and_files(models, tmp_path):
    make, model, _, _ = models
    pyops.save(model, tmp_path / "model")
    torch.manual_seed(1)
    loaded = pyops.load(tmp_path / "model", make())
    arguments = call(make, 3, 7, "right")
    expected, _ = ran(model, arguments)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        assert pyops.explain(other) == pyops.explain(model)
        out, why = ran(other, arguments)
        assert not why
        assert close(out, expected, 0)


def test_options_of_a_call_and_of_the_config():
    model, unfused = quantized(bert), quantized(bert, False, fuse=False)
    arguments = call(bert, 2, 8)
    for one in (model, unfused):
        one.set_attn_implementation("eager")
    out, why = ran(model, arguments)
    assert why == {"its config or another object that its forward reads has changed"}
    assert close(out, unfused(**arguments), CLOSE)
    out = model(**arguments, output_attentions=True, output_hidden_states=True)
    assert [tuple(a.shape) for a in out.attentions] == [(2, 4, 8, 8)] * 2
    assert len(out.hidden_states) == 3


def test_outputs_that_are_asked_for_after_a_capture():
    model, unfused = quantized(bert), quantized(bert, False, fuse=False)
    arguments = call(bert, 2, 8)
    assert not ran(model, arguments)[1]
    for one in (model, unfused):
        one.config.output_hidden_states = True
    out, expected = model(**arguments), unfused(**arguments)
    assert len(out.hidden_states) == len(expected.hidden_states) == 3
    for a, b in zip(out.hidden_states, expected.hidden_states, strict=True):
        assert (a - b).abs().max() <= CLOSE * b.abs().max()


def test_a_result_with_a_cache_is_not_one_graph():
    torch.manual_seed(0)
    arguments = call(gpt2, 2, 8)
    del arguments["use_cache"]
    model = pyops.quantize(gpt2().eval(), example_inputs=arguments, never_slower=False)
    assert pyops.explain(model).graphs == (
        "GPT2LMHeadModel runs module by module: it returns a DynamicCache",
    )
    assert ending(pyops.graph.fusions_of(model).notes, "mlp.c_fc")  # as without an example


def test_generation_is_that_of_the_unfused_model():
    ids = call(gpt2, 1, 4)["input_ids"]
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "pad_token_id": 0}
    for make in (gpt2, llama):
        out = [
            one.generate(ids, do_sample=False, **options)
            for one in (quantized(make), quantized(make, False, fuse=False))
        ]
        assert torch.equal(*out)


def test_larger_embeddings():
    """transformers puts other values into the same parameter."""
    model, unfused = quantized(bert), quantized(bert, False, fuse=False)
    arguments = call(bert, 2, 8)
    for one in (model, unfused):
        torch.manual_seed(0)
        one.resize_token_embeddings(120)
    out, _ = ran(model, arguments)
    assert close(out, unfused(**arguments), CLOSE)


def test_minilm():
    try:
        file = packages.file(*WEIGHTS_PACKAGE, "model/model.safetensors")
    except packages.MissingPackageError as error:
        pytest.skip(str(error))
    from safetensors.torch import load_file

    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    model = transformers.BertModel(config).eval()
    assert not model.load_state_dict(load_file(file), strict=False).missing_keys
    names = ("input_ids", "attention_mask")
    example = dict(zip(names, random_batch(1, 16), strict=True))
    new = pyops.quantize(model, example_inputs=example, never_slower=False)
    by_module = pyops.quantize(model)
    notes = pyops.graph.fusions_of(new).notes
    for i in range(6):
        path = f"encoder.layer.{i}"
        for name in ("query", "key", "value"):
            assert "one call with" in str(notes[f"{path}.attention.self.{name}"])
        assert "gelu" in notes[f"{path}.intermediate.dense"]
        assert "residual" in notes[f"{path}.output.dense"]
    for rows, tokens in ((1, 16), (3, 128)):
        arguments = dict(zip(names, random_batch(rows, tokens), strict=True))
        arguments["attention_mask"][-1, tokens // 2 :] = 0
        out, why = ran(new, arguments)
        assert not why
        with torch.no_grad():
            floats, other = model(**arguments), by_module(**arguments)
        for a, b in ((out, floats), (out, other)):
            cosine = nn.functional.cosine_similarity(a[0].flatten(), b[0].flatten(), dim=0)
            assert cosine > 0.99
