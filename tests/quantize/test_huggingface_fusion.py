"""What is fused in transformers models: tiny random ones, nothing downloaded."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

import pyops

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

IDS = torch.tensor([[5, 9, 2, 77, 31, 8], [4, 1, 1, 60, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT2_SIZES = {"n_positions": 32, "n_embd": 64, "n_layer": 2, "n_head": 4}
# A gelu that differs by one rounding may move an int8 code of the next layer by a step.
CLOSE = 2e-2


def bert():
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=100, intermediate_size=128, max_position_embeddings=32, **SIZES
    )
    return transformers.BertModel(config).eval()


def gpt2():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=100, **GPT2_SIZES)
    ).eval()


def vit():
    torch.manual_seed(0)
    config = transformers.ViTConfig(intermediate_size=128, image_size=32, patch_size=8, **SIZES)
    return transformers.ViTModel(config).eval()


def run(model):
    if isinstance(model, transformers.ViTModel):
        return model(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32)).last_hidden_state
    out = model(input_ids=IDS, attention_mask=MASK)
    return out.logits if hasattr(out, "logits") else out.last_hidden_state


def notes(model):
    return pyops.graph.fusions_of(model).notes


def ending(found, end):
    return [value for path, value in found.items() if path.endswith(end)]


def test_bert():
    found = notes(pyops.quantize(bert()))
    assert ending(found, "intermediate.dense") == [["gelu"]] * 2
    assert ending(found, "output.dense") == [["residual", "LayerNorm"]] * 4  # of attention and mlp


def test_gpt2():
    found = notes(pyops.quantize(gpt2()))
    assert ending(found, "mlp.c_fc") == [["gelu_tanh", "one call with c_proj"]] * 2
    assert ending(found, "mlp.c_proj") == [["one call with c_fc"]] * 2


def test_vit():
    found = notes(pyops.quantize(vit()))
    assert ending(found, "fc1") == [["gelu", "one call with fc2"]] * 2
    assert ending(found, "fc2") == [["one call with fc1"]] * 2


@pytest.mark.parametrize("make", [bert, gpt2, vit])
def test_results_are_those_of_the_unfused_model(make):
    with torch.no_grad():
        out, expected = (run(pyops.quantize(make(), fuse=f)) for f in (True, False))
        assert (out - expected).abs().max() <= CLOSE * expected.abs().max()
        with torch.autocast("cpu", dtype=torch.bfloat16):  # runs as written
            out, expected = (run(pyops.quantize(make(), fuse=f)) for f in (True, False))
            assert torch.equal(out, expected)


@pytest.mark.parametrize("make", [bert, gpt2, vit])
def test_copies_and_files(make, tmp_path):
    new = pyops.quantize(make())
    pyops.save(new, tmp_path / "model")
    loaded = pyops.load(tmp_path / "model", make())
    for other in (copy.deepcopy(new), pickle.loads(pickle.dumps(new)), loaded):
        assert notes(other) == notes(new) != {}
        assert torch.equal(run(other), run(new))


def test_options_after_the_conversion():
    """Attention weights need another implementation of attention, chosen on the config."""
    for fuse in (True, False):
        new = pyops.quantize(bert(), fuse=fuse)
        new.set_attn_implementation("eager")
        out = new(input_ids=IDS, output_attentions=True, output_hidden_states=True)
        assert [tuple(a.shape) for a in out.attentions] == [(2, 4, 6, 6)] * 2
        assert len(out.hidden_states) == 3


def test_generation_is_that_of_the_unfused_model():
    ids = IDS[:1, :4]
    options = {"attention_mask": torch.ones_like(ids), "max_new_tokens": 8, "pad_token_id": 0}
    out = [
        pyops.quantize(gpt2(), fuse=fuse).generate(ids, do_sample=False, **options)
        for fuse in (True, False)
    ]
    assert torch.equal(*out)
