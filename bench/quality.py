"""Scores MiniLM by ours and by the peers against people's judgement, and against fp32.

python bench/quality.py
python bench/quality.py --slow --json quality.json

Tasks: WordSim353 and SimLex999 (Spearman's rho), Lee-50 (Pearson), and the cosine to the fp32
embedding over 64 sentences, mean and least.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import caps

BATCH = 64
Embed = Callable[[Sequence[str]], Any]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--slow", action="store_true", help="also peers that take long to prepare")
    top.add_argument("--only-peers", default="", help="only peers whose name contains this")
    top.add_argument("--isa", help="cap our kernels at this level")
    top.add_argument("--peer-isa", choices=list(caps.CAPS), default="native", help="cap the peers")
    top.add_argument("--json", type=Path, metavar="OUT", help="write all numbers")
    return top


def main(arguments: list[str] | None = None) -> int:
    """Print and write the scores; return the exit status."""
    options = parser().parse_args(arguments)
    caps.enforce(options.peer_isa)
    try:
        scores, reasons = run(options)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    tasks = list(next(iter(scores.values())))
    print(f"{'':20s}" + "".join(f"{task:>15s}" for task in tasks))
    for name, values in scores.items():
        print(f"{name:20s}" + "".join(f"{values[task]:15.4f}" for task in tasks))
    for name, reason in reasons.items():
        print(f"{name} not scored: {reason}")
    if options.json:
        options.json.write_text(json.dumps({"scores": scores, "reasons": reasons}, indent=1) + "\n")
    return 0


def run(options: argparse.Namespace) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return the scores of each candidate by task, and why others have none."""
    import torch
    from case import UnavailableError
    from measure import OURS, peers_for
    from models.minilm import cases

    from pyops import isa

    base = next(iter(cases("tiny")))
    ours = [
        SimpleNamespace(
            NAME=name, make=lambda case, dtype=dtype: over(quantized(case, dtype), case)
        )
        for name, dtype in ((OURS, None), (f"{OURS} bf16", torch.bfloat16))
    ]
    fp32 = SimpleNamespace(NAME="torch fp32", make=lambda case: over(case.model, case))
    peers = [
        peer
        for peer in peers_for(base, options.slow)
        if options.only_peers in peer.NAME and peer.NAME != fp32.NAME
    ]
    scores: dict[str, dict[str, float]] = {}
    reasons: dict[str, str] = {}
    scorer = Scorer(base)
    with isa.force(options.isa) if options.isa else contextlib.nullcontext():
        for peer in (fp32, *ours, *peers):
            try:
                with torch.inference_mode():
                    scores[peer.NAME] = scorer.scores(peer)
            except UnavailableError as error:
                reasons[peer.NAME] = str(error)
    return scores, reasons


def quantized(case: Any, dtype: Any) -> Any:
    """Return our int8 model of ``case`` with values of ``dtype`` between its layers."""
    import pyops

    return pyops.quantize(case.model, dtype=dtype)


def over(model: Any, case: Any) -> Callable[[], Any]:
    """Return the call of ``model`` on the inputs of ``case``."""
    return lambda: model(*case.inputs)


class Scorer:
    """Holds the tasks and runs a candidate over them, ``BATCH`` texts at a time.

    A peer is made for one shape, so all batches of a task have the length of its longest text and
    are copied into the tensors that the peer was made with.
    """

    def __init__(self, base: Any) -> None:
        from pyops.testing.models import minilm, similarity

        self.base = base
        self.tokenizer = minilm.load_tokenizer()
        self.words = {
            "WordSim353": similarity.wordsim353(),
            "SimLex999": similarity.simlex999(),
        }
        self.lee = similarity.lee50()
        self.exact: Any = None

    def scores(self, peer: Any) -> dict[str, float]:
        """Return the score of each task; the first candidate is fp32, to which others compare."""
        from pyops.testing.models import similarity
        from pyops.testing.models.sentences import SENTENCES

        def embed(texts: Sequence[str]) -> Any:
            return self.embed(peer, texts)

        sentences = embed(SENTENCES)
        if self.exact is None:
            self.exact = sentences
        mean, least = similarity.cosines(sentences, self.exact)
        rhos = {name: task.rho(embed) for name, task in self.words.items()}
        return {**rhos, "Lee-50": self.lee.pearson(embed), "mean cosine": mean, "least": least}

    def embed(self, peer: Any, texts: Sequence[str]) -> Any:
        """Return the embeddings of ``texts``, fp32 ``[len(texts), 384]``."""
        import dataclasses

        import torch

        from pyops.testing.models import minilm

        ids, mask = minilm.tokenize(self.tokenizer, texts)
        rows = min(BATCH, len(texts))
        inputs = (ids[:rows].clone(), mask[:rows].clone())
        call = peer.make(dataclasses.replace(self.base, inputs=inputs))
        parts = []
        for start in range(0, len(texts), rows):
            # The last batch repeats texts of the one before, to have the same shape.
            start = min(start, len(texts) - rows)
            inputs[0].copy_(ids[start : start + rows])
            inputs[1].copy_(mask[start : start + rows])
            parts.append((start, call().float().clone()))
        out = torch.empty(len(texts), parts[0][1].shape[1])
        for start, part in parts:
            out[start : start + rows] = part
        return out


if __name__ == "__main__":
    sys.exit(main())
