"""The language engine: models loaded, timed on this machine, and the fastest of AR, SD and SSD chosen."""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Self

import torch

from worldpilot.errors import InvalidInput, NotReady, UnknownName
from worldpilot.models.language.base import Cancelled, Generation, OnTokens, Request
from worldpilot.models.language.context import Context, Model
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder, Speculator
from worldpilot.models.language.draft_worker import Beside, DraftSource
from worldpilot.models.language.fan_out import Outcomes
from worldpilot.models.language.loaders import DTYPES, agreement_of, load, load_model, tokenizer_fingerprint
from worldpilot.models.language.speculation import Draft, DraftConfig
from worldpilot.models.language.speed import Times, ar_rate, hit_rate, longest_hidden, sd_rate, ssd_rate
from worldpilot.models.language.tokenizer import Tokenizer

log = logging.getLogger(__name__)

METHODS = ("auto", "ar", "sd", "ssd")
LOOKAHEADS = range(1, 17)
BUDGETS = (4, 8, 16)
VERIFIED = (0, 1, 2, 4, 6, 8, 12, 16)  # drafted tokens for which verification is timed
WORTH = 1.03  # what a method has to gain to be chosen over a simpler one


@dataclass(frozen=True)
class EngineConfig:
    """What to load, where, and how to speculate."""

    target: str = "smollm2"
    draft: str | None = "draft"  # None: nothing drafts
    method: str = "auto"  # one of METHODS
    dtype: str = "auto"  # of the target: bfloat16 where the hardware computes in it, otherwise float32
    draft_dtype: str = "auto"  # likewise
    device: str = "cpu"
    draft_device: str = "cpu"
    threads: int = 1  # of the target on a CPU; for the whole process, as torch has it
    draft_threads: int = 1
    cores: tuple[int, int] | None = None  # the target's and the draft's processor core; None: any
    context: int = 2048  # the longest text, prompt and output together
    lookahead: int | None = None  # K; None: from the times measured
    budget: int | None = None  # B, branches of SSD's tree; None: from the times measured
    scale: float = 1.0  # C of Saguaro sampling
    top: int = 4  # F of Saguaro sampling
    acceptance: float | None = None  # the chance that a drafted token is accepted; None: what the draft's manifest says

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UnknownName("method", self.method, METHODS)
        for dtype in (self.dtype, self.draft_dtype):
            if dtype != "auto" and dtype not in DTYPES:
                raise UnknownName("dtype", dtype, ["auto", *DTYPES])
        if self.draft is None and self.method in ("sd", "ssd"):
            raise InvalidInput(f"engine: method {self.method!r} needs a draft; name one, or use 'ar'")
        probable = self.acceptance is None or 0 < self.acceptance < 1
        if min(self.threads, self.draft_threads) < 1 or self.context < 2 or not probable:
            raise InvalidInput(
                "engine: threads must be at least 1, context at least 2 and acceptance within (0, 1), "
                f"got {self.threads}, {self.draft_threads}, {self.context}, {self.acceptance}"
            )
        if self.cores is not None and (self.threads, self.draft_threads) != (1, 1):
            raise InvalidInput("engine: bound to a core, target and draft run on one thread each; set cores to None")
        self.speculation(1 if self.lookahead is None else self.lookahead, self.budget or 0)

    def speculation(self, lookahead: int, budget: int = 0) -> DraftConfig:
        """How the draft speculates: K tokens, and a tree of B branches. Raises InvalidInput where it cannot."""
        return DraftConfig(lookahead, budget, self.scale, self.top)

    def estimates(self) -> Outcomes:
        """What is expected of the draft before it has drafted anything, for choosing the lookahead and the method."""
        known = self.acceptance
        if known is None and self.draft is not None and self.method != "ar":
            known = agreement_of(self.draft)
        return Outcomes() if known is None else Outcomes(known)

    def types(self) -> tuple[str, str]:
        """Of the target's and of the draft's weights."""
        asked = ((self.dtype, self.device), (self.draft_dtype, self.draft_device))
        target, draft = (best_dtype(device) if dtype == "auto" else dtype for dtype, device in asked)
        return target, draft


@dataclass(frozen=True)
class Choice:
    """The method chosen, and what the times predict for each there is."""

    method: str
    lookaheads: Mapping[str, int]  # K; 0: nothing is drafted
    budget: int  # B of SSD
    rates: Mapping[str, float]  # [tokens/s]
    times: Times
    why: str  # it is not another method, if that needs a reason

    @property
    def lookahead(self) -> int:
        return self.lookaheads[self.method]


class Engine:
    """A `Decoder` with its tokenizer. One text at a time: a second call waits for the first.

    `report` says in a few lines which method was chosen, and why; `choice` has the figures.

    Raises:
        NotReady: a named model's package is not installed, or the draft's process does not start.
        ArtifactError: a file that is not what it should be.
        UnknownName, InvalidInput: what the configuration asks for does not exist or does not fit together.
    """

    def __init__(self, config: EngineConfig | None = None) -> None:
        self.config = config = config or EngineConfig()
        torch.set_num_threads(config.threads)
        self._lock = threading.Lock()
        target, self.tokenizer = load(config.target, config.types()[0], config.device)
        self.context = min(config.context, target.config.context)
        draft = None if config.draft is None or config.method == "ar" else self._load_draft(target)
        with self._bound():
            estimates = config.estimates()
            self.choice = choose(config, target, draft, self.context, estimates)
        self._decoder = SpeculativeDecoder(target, self._speculator(draft), self.context)
        self.method = self.choice.method
        self.report = _describe(self.choice, estimates.acceptance)
        log.info(self.report)

    def generate(
        self, request: Request, on_tokens: OnTokens | None = None, cancelled: Cancelled | None = None
    ) -> Generation:
        """See `Decoder`."""
        with self._lock, self._bound():
            return self._decoder.generate(request, on_tokens, cancelled)

    def close(self) -> None:
        """See `Decoder`."""
        with self._lock:
            self._decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _load_draft(self, target: Model) -> Model:
        config = self.config
        draft = load_model(config.draft or "", config.types()[1], config.draft_device)
        if draft.config.vocab_size != target.config.vocab_size:
            raise InvalidInput(
                f"engine: the draft {config.draft!r} has {draft.config.vocab_size} tokens and the target "
                f"{config.target!r} {target.config.vocab_size}; they need one tokenizer"
            )
        theirs, ours = tokenizer_fingerprint(config.draft or ""), self.tokenizer.fingerprint
        if theirs != ours:
            raise InvalidInput(
                f"engine: the draft {config.draft!r} is of the tokenizer {theirs[:12]}, the target {config.target!r} "
                f"of {ours[:12]}; take a draft of the target's own tokenizer, or distil one (scripts/train_draft.sh)"
            )
        return draft

    def _speculator(self, draft: Model | None) -> Speculator:
        """Who drafts, by the choice. Where it was free, SSD whose process does not start becomes SD."""
        config, choice = self.config, self.choice
        if draft is None or choice.method == "ar":
            return Silent()
        if choice.method == "ssd":
            beside = Beside(draft_source(config, choice, self.context, self.tokenizer))
            try:
                beside.wait()
                return beside
            except NotReady as error:
                beside.close()
                if config.method != "auto":
                    raise
                self.choice = choice = replace(choice, method="sd", why=str(error))
        return Serial(Draft(draft, config.speculation(choice.lookahead), self.context))

    @contextlib.contextmanager
    def _bound(self) -> Iterator[None]:
        """The calling thread bound to the target's core, if the configuration says so."""
        if self.config.cores is None:
            yield
            return
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.config.cores[0]})
        try:
            yield
        finally:
            os.sched_setaffinity(0, before)


@torch.inference_mode()
def choose(config: EngineConfig, target: Model, draft: Model | None, context: int, estimates: Outcomes) -> Choice:
    """The fastest method that the configuration and the machine allow, by the times measured here.

    Args:
        config: what is asked for.
        target: the model that verifies.
        draft: the model that drafts, if there is one.
        context: the longest text.
        estimates: of the acceptance and of the bonus's rank.
    """
    verify = time_verification(target, context)
    if draft is None:
        times = Times(verify, float("nan"), float("nan"))
        return Choice("ar", {"ar": 0}, 0, {"ar": ar_rate(times)}, times, "nothing drafts" * (config.method != "ar"))
    acceptance = estimates.acceptance
    candidates = list(LOOKAHEADS) if config.lookahead is None else [config.lookahead]
    budgets = BUDGETS if config.budget is None else (config.budget,)
    shape = LOOKAHEADS[-1] // 2
    priced = {b: Times(verify, *Draft(draft, config.speculation(shape, b), context).measure()) for b in budgets}
    trees = [(k, b) for b in budgets for k in candidates if k <= longest_hidden(priced[b], candidates)]

    def beside(lookahead: int, budget: int) -> float:
        return ssd_rate(priced[budget], acceptance, lookahead, hit_rate(lookahead, budget, estimates))

    lookahead, budget = max(trees, key=lambda tree: beside(*tree))
    times = priced[budget]
    lookaheads = {"ar": 0, "sd": max(candidates, key=lambda k: sd_rate(times, acceptance, k)), "ssd": lookahead}
    rates = {
        "ar": ar_rate(times),
        "sd": sd_rate(times, acceptance, lookaheads["sd"]),
        "ssd": beside(lookahead, budget),
    }
    if config.method != "auto":
        return Choice(config.method, lookaheads, budget, rates, times, "")
    obstacle = _no_device_of_its_own(config)
    method = "ar"
    for better in ("sd",) if obstacle else ("sd", "ssd"):
        if rates[better] > WORTH * rates[method]:
            method = better
    if method != "ssd" and not obstacle:
        obstacle = f"SSD would not pay: {rates['ssd']:.0f} tokens/s to {method.upper()}'s {rates[method]:.0f}"
    return Choice(method, lookaheads, budget, rates, times, obstacle if method != "ssd" else "")


def draft_source(config: EngineConfig, choice: Choice, context: int, tokenizer: Tokenizer) -> DraftSource:
    """What the draft's process needs for SSD."""
    return DraftSource(
        config.draft or "",
        config.speculation(choice.lookaheads["ssd"], choice.budget),
        context,
        tokenizer,
        config.types()[1],
        config.draft_device,
        core=None if config.cores is None else config.cores[1],
        threads=config.draft_threads,
    )


@torch.inference_mode()
def time_verification(target: Model, context: int, text: int = 128, repeats: int = 5) -> dict[int, float]:
    """The median time [s] for the target to read 1 + k tokens behind a text, for each k of `VERIFIED`."""
    text = min(text, context - VERIFIED[-1] - 1)
    reader = Context(target, context)
    reader.read([0] * max(text, 1), last=0)
    times: dict[int, list[float]] = {k: [] for k in VERIFIED if max(text, 1) + 1 + k <= context}
    for _ in range(repeats + 1):
        for k, measured in times.items():
            start = time.perf_counter()
            float(reader.read([0] * (1 + k))[-1, 0])  # waits for the device
            measured.append(time.perf_counter() - start)
            reader.keep(max(text, 1))
    return {k: median(measured[1:]) for k, measured in times.items()}  # the first warms up


def best_dtype(device: str) -> str:
    """bfloat16 where the hardware computes in it, otherwise float32."""
    fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
    return "bfloat16" if fast else "float32"


def _no_device_of_its_own(config: EngineConfig) -> str:
    """Why target and draft cannot work side by side; empty if they can."""
    if config.device != config.draft_device:
        return ""
    if config.device != "cpu":
        return f"target and draft share {config.device}"
    cores = len(os.sched_getaffinity(0))
    needed = config.threads + config.draft_threads
    return f"target and draft need {needed} processor cores, there are {cores}" if cores < needed else ""


def _describe(choice: Choice, acceptance: float) -> str:
    """For people."""
    rates = ", ".join(f"{name.upper()} {rate:.0f}" for name, rate in choice.rates.items())
    lines = [
        f"{choice.method.upper()}"
        + (f", {choice.lookahead} tokens drafted at a time" if choice.lookahead else "")
        + (f" in {choice.budget} branches" if choice.method == "ssd" else "")
    ]
    if choice.why:
        lines[0] += f" ({choice.why})"
    lines.append(f"tokens/s to be expected at an acceptance of {acceptance:.2f}: {rates}")
    times = choice.times
    timed = f"a verification takes {1e3 * times.verification(choice.lookahead):.1f} ms"
    if choice.lookahead:
        timed += f", a draft step {1e3 * times.step:.1f} ms, a step of the tree {1e3 * times.tree_step:.1f} ms"
    return "\n".join([*lines, timed])
