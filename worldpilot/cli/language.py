"""`worldpilot language`: instructions to a running graph, and its language model by itself: chat, service, figures."""

import argparse
import json
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worldpilot.errors import InvalidInput, NotReady

if TYPE_CHECKING:
    from worldpilot.models.language.engine import Engine, EngineConfig

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="what", required=True, metavar="WHAT")

    ask = commands.add_parser("ask", help="instruct the robot of a running graph (`worldpilot up --with reasoning`)")
    ask.set_defaults(act=_ask)
    ask.add_argument("instruction", help='as "push the block to the left edge, gently", or "why did you stop?"')
    ask.add_argument("--propose", action="store_true", help="say which reward it would be, and keep the old one")
    ask.add_argument("--yes", action="store_true", help="apply it even if the model is not sure that it is meant")
    ask.add_argument("--deadline", type=float, default=0.0, help="time for it [s] (default: the node's)")
    ask.add_argument("--namespace", default="", help="of the graph")

    chat = commands.add_parser("chat", help="talk to the model; Ctrl-C ends an answer, /quit the chat")
    chat.set_defaults(act=_chat)
    _add_engine(chat)
    chat.add_argument("--system", default="", help="what the model is told first")
    chat.add_argument("--temperature", type=float, default=0.0, help="0: always the likeliest (default)")
    chat.add_argument("--max-tokens", type=int, default=400, help="of an answer (default: 400)")
    chat.add_argument("--seed", type=int, default=0, help="of what is drawn above temperature 0 (default: 0)")

    serve = commands.add_parser("serve", help="serve the model to OpenAI clients, by default on this machine only")
    serve.set_defaults(act=_serve)
    _add_engine(serve)
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this machine)")
    serve.add_argument("--port", type=int, default=8000, help="0: any that is free (default: 8000)")
    serve.add_argument("--name", help="what clients call the model (default: as --model)")
    serve.add_argument("--queue", type=int, default=4, help="requests that may wait; more get 429 (default: 4)")

    bench = commands.add_parser("bench", help="tokens a second: plain, speculative, speculative speculative decoding")
    bench.set_defaults(act=_bench)
    _add_engine(bench, model="reasoning")
    bench.add_argument("--count", type=int, default=24, help="held-out instructions to answer (default: 24)")
    bench.add_argument("--rounds", type=int, default=3, help="each is answered so often, in turns (default: 3)")
    bench.add_argument("--without-transformers", action="store_true", help="leave that comparison out")
    bench.add_argument("--json", type=Path, help="write the figures as one JSON object")

    evaluate = commands.add_parser("evaluate", help="how many held-out instructions are understood, by what they cause")
    evaluate.set_defaults(act=_evaluate)
    _add_engine(evaluate, model="reasoning")
    evaluate.add_argument(
        "--set",
        choices=("table", "quadruped", "quadruped2", "planar"),
        default="table",
        help="whose instructions (default: table)",
    )
    evaluate.add_argument("--simulate", type=int, help="judge only so many in simulation, the others by their slots")
    evaluate.add_argument("--seed", type=int, default=0, help="of the simulation (default: 0)")
    evaluate.add_argument("--json", type=Path, help="write the figures and every case as one JSON object")


def run(args: argparse.Namespace) -> int:
    return args.act(args)


def _add_engine(parser: argparse.ArgumentParser, model: str = "smollm2") -> None:
    parser.add_argument("--model", default=model, help=f"a name, a .gguf file, a folder (default: {model})")
    parser.add_argument("--draft", default="draft", help="speculates; none: nothing does (default: the shipped draft)")
    parser.add_argument("--method", choices=("auto", "ar", "sd", "ssd"), default="auto", help="auto: the fastest here")
    parser.add_argument("--dtype", choices=("auto", "bfloat16", "float32"), default="auto", help="of the weights")
    parser.add_argument("--device", default="cpu", help="of the model: cpu or cuda:N (default: cpu)")
    parser.add_argument("--draft-device", default="cpu", help="of the draft (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="of the model, on a CPU (default: 1)")
    parser.add_argument("--cores", type=_cores, help="TARGET,DRAFT: CPU cores to bind them to (default: any)")
    parser.add_argument("--context", type=int, default=2048, help="tokens of the longest text (default: 2048)")


def _cores(text: str) -> tuple[int, int]:
    target, draft = map(int, text.split(","))
    return target, draft


def _config(args: argparse.Namespace) -> "EngineConfig":
    """The engine that the arguments describe.

    Raises:
        NotReady: what it needs is not installed.
        InvalidInput, UnknownName: what they ask for can't be had.
    """
    try:
        from worldpilot.models.language.engine import EngineConfig
    except ImportError as error:
        raise NotReady(f"{error}: install the extra, `pip install worldpilot[language]`") from error
    return EngineConfig(
        target=args.model,
        draft=None if args.draft == "none" else args.draft,
        method=args.method,
        dtype=args.dtype,
        device=args.device,
        draft_device=args.draft_device,
        threads=args.threads,
        cores=args.cores,
        context=args.context,
    )


def _engine(args: argparse.Namespace) -> "Engine":
    """The engine, loaded and timed. Raises as `_config`, and ArtifactError where a model can't be used."""
    config = _config(args)
    from worldpilot.models.language.engine import Engine

    return Engine(config)


# --- ask ---------------------------------------------------------------------------------------------------------


def _ask(args: argparse.Namespace) -> int:
    """0 if the instruction was followed."""
    from worldpilot.cli import ros

    ros.enter()
    from worldpilot_msgs.action import Reason
    from worldpilot_nodes.client import Client

    kind = Reason.Result
    followed = {kind.REWARD_APPLIED: "applied", kind.REWARD_PROPOSED: "proposed", kind.ANSWERED: "answered"}
    failed = {
        kind.REFUSED: "refused",
        kind.INVALID: "invalid",
        kind.SWAP_REFUSED: "refused by the planner",
        kind.CANCELLED: "cancelled",
        kind.DEADLINE: "too late",
        kind.UNAVAILABLE: "planner unavailable",
        kind.UNSURE: "not sure",
    }
    with Client(namespace=args.namespace) as client:
        reasoning = client.reason(args.instruction, propose=args.propose, deadline=args.deadline)
        with _interruptible() as interrupted:
            while (result := reasoning.result(0.1)) is None:
                if interrupted.is_set():
                    reasoning.cancel()
        print(f"{(followed | failed)[result.status]} ({result.seconds:.2f} s)")
        for text in dict.fromkeys((result.rationale, result.message, result.spec_json)):
            if text:
                print(text)
        if result.status != kind.UNSURE or not (args.yes or _confirmed("apply it?")):
            return 0 if result.status in followed else 1
        swap = client.swap_reward(result.spec_json)
        print("applied" if swap.accepted else f"refused by the planner: {swap.message}")
        return 0 if swap.accepted else 1


def _confirmed(question: str) -> bool:
    """Whether the user, if there is one, says yes."""
    if not sys.stdin.isatty():
        return False
    try:
        return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


# --- chat --------------------------------------------------------------------------------------------------------


def _chat(args: argparse.Namespace) -> int:
    system = [{"role": "system", "content": args.system}] if args.system else []
    said: list[dict[str, str]] = []
    with _engine(args) as engine:
        print(f"{engine.report}\n/new forgets, /quit or Ctrl-D ends, Ctrl-C ends an answer", file=sys.stderr)
        while (line := _line()) is not None:
            if line == "/new":
                said = []
            elif line:
                asked = [*said, {"role": "user", "content": line}]
                try:
                    asked = _within(engine, system, asked, args.max_tokens)
                    said = [*asked, {"role": "assistant", "content": _answer(engine, [*system, *asked], args)}]
                except InvalidInput as error:
                    print(error, file=sys.stderr)
    return 0


def _line() -> str | None:
    """What the user types; None: no more."""
    try:
        line = input("> " if sys.stdin.isatty() else "").strip()
    except (EOFError, KeyboardInterrupt):
        print(file=sys.stderr)
        return None
    return None if line == "/quit" else line


def _within(engine: "Engine", system: list[Any], said: list[Any], max_tokens: int) -> list[Any]:
    """What was said, without its beginning where that is too long for the model.

    Raises:
        InvalidInput: the last line alone is.
    """
    while len(engine.tokenizer.chat([*system, *said])) + max_tokens > engine.context:
        if len(said) == 1:
            raise InvalidInput(f"that and an answer of {max_tokens} tokens exceed the model's {engine.context}")
        said = said[2:]  # a question and its answer
    return said


def _answer(engine: "Engine", messages: list[Any], args: argparse.Namespace) -> str:
    """Generate, and print as it comes."""
    from worldpilot.models.language.base import Finish, Request
    from worldpilot.reasoning.streaming import TextStream

    stream, text = TextStream(engine.tokenizer), ""

    def show(piece: str) -> None:
        nonlocal text
        text += piece
        print(piece, end="", flush=True)

    request = Request(
        prompt=tuple(engine.tokenizer.chat(messages)),
        max_tokens=args.max_tokens,
        temperature=args.temperature,
        seed=args.seed,
        end=engine.tokenizer.end,
    )
    begin = time.perf_counter()
    with _interruptible() as interrupted:
        generation = engine.generate(request, lambda tokens: show(stream.push(tokens)), interrupted.is_set)
    show(stream.close())
    seconds, tokens = time.perf_counter() - begin, len(generation.tokens)
    why = {Finish.CANCELLED: ", interrupted", Finish.LENGTH: ", cut off (--max-tokens)"}.get(generation.finish, "")
    print()
    print(f"[{tokens} tokens, {tokens / seconds:.0f}/s{why}]", file=sys.stderr)
    return text


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Ctrl-C sets the event instead of ending the program."""
    interrupted = threading.Event()
    before = signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


# --- serve -------------------------------------------------------------------------------------------------------


def _serve(args: argparse.Namespace) -> int:
    try:
        import uvicorn

        from worldpilot.reasoning.server import application
    except ImportError as error:
        raise NotReady(f"{error}: install the extra, `pip install worldpilot[language]`") from error
    name = args.name or args.model
    with _bind(args.host, args.port) as listening, _engine(args) as engine:
        local = args.host in LOOPBACK
        if not local:
            print(f"anyone who can reach {args.host} can use this: no keys, no encryption", file=sys.stderr)
        app = application(engine, name, hosts=LOOPBACK if local else (), waiting=args.queue)
        print(f"{engine.report}\n{name} at http://{args.host}:{listening.getsockname()[1]}/v1", flush=True)
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        with suppress(KeyboardInterrupt):  # uvicorn passes it on when it has ended
            uvicorn.Server(config).run(sockets=[listening])
    return 0


def _bind(host: str, port: int) -> socket.socket:
    """A socket to listen on, taken before the model is loaded."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise InvalidInput(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error


# --- figures -----------------------------------------------------------------------------------------------------


def _bench(args: argparse.Namespace) -> int:
    config = _config(args)
    from worldpilot.models.language.bench import bench, describe
    from worldpilot.models.language.loaders import load_tokenizer
    from worldpilot.reasoning.draft import instruction_requests

    requests = instruction_requests(load_tokenizer(args.model), args.count, seed=1, validation=True)
    compared = not args.without_transformers
    figures = bench(requests, config, rounds=args.rounds, transformers=compared, progress=_progress)
    print(describe(figures))
    return _write(args.json, figures)


def _evaluate(args: argparse.Namespace) -> int:
    from worldpilot.reasoning.evaluation import HELD_OUT, evaluate, load_questions
    from worldpilot.reasoning.reasoner import Reasoner

    with _engine(args) as engine:
        figures = evaluate(
            Reasoner(engine),
            questions=load_questions(HELD_OUT[args.set]),
            simulate=args.simulate,
            seed=args.seed,
            progress=lambda case: _progress(case["say"]),
        )
    for name, found in figures.items():
        if isinstance(found, dict) and found.get("n"):
            low, high = found["ci"]
            print(f"{name:12} {found['rate']:6.1%} [{low:5.1%}, {high:5.1%}] of {found['n']}")
    return _write(args.json, figures)


def _progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{line[:100]}", end="", file=sys.stderr, flush=True)


def _write(path: Path | None, figures: dict[str, Any]) -> int:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(figures, indent=2) + "\n")
    return 0
