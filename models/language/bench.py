"""How fast are AR, SD and SSD here, and how fast is `transformers` with the same weights?

All generate the same texts greedily, in turn and interleaved, text by text, so that they share whatever else the
machine does. A rate is a text's tokens by the time since its prompt has been read [tokens/s]. `transformers` does not
say when that is: there it is the tokens behind the first by the time since the first came, with all that came with it.
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldpilot.errors import InvalidInput
from worldpilot.models.language.base import DecodeStats, Generation, Request
from worldpilot.models.language.decoders import Serial, Silent, SpeculativeDecoder
from worldpilot.models.language.draft_worker import Beside
from worldpilot.models.language.engine import Choice, EngineConfig, choose, draft_source
from worldpilot.models.language.fan_out import Outcomes
from worldpilot.models.language.loaders import load, load_model, save, split_tensors
from worldpilot.models.language.sampling import FloatArray
from worldpilot.models.language.speculation import Draft
from worldpilot.models.language.speed import Times
from worldpilot.models.language.tokenizer import Tokenizer
from worldpilot.models.language.transformer import Llama

Generate = Callable[[Request, Callable[[Sequence[int]], None]], DecodeStats | None]
RATIOS = (  # what is compared with what
    ("sd", "ar1"),  # the same hardware
    ("ssd", "sd"),  # the same hardware for the target
    ("ssd", "ar1"),
    ("ssd", "ar2"),  # two cores each
    ("sd", "hf_assisted"),
    ("ssd", "hf_assisted"),
)


@dataclass
class Runs:
    """What a way of decoding did with each text, in all rounds."""

    rates: list[list[float]] = field(default_factory=list)  # [tokens/s], for each text one a round; nan: no time passed
    late: list[list[float]] = field(default_factory=list)  # likewise, of the tokens behind those that came first
    seconds: list[float] = field(default_factory=list)  # whole texts
    gaps: list[float] = field(default_factory=list)  # between final tokens being handed out [s]
    stats: list[DecodeStats] = field(default_factory=list)
    texts: list[tuple[int, ...]] = field(default_factory=list)  # of the last round

    def run(self, generate: Generate, request: Request, index: int) -> None:
        """Generate a text and note how it went."""
        tokens: list[int] = []
        times: list[float] = []
        counts: list[int] = []

        def hear(new: Sequence[int]) -> None:
            times.append(time.perf_counter())
            counts.append(len(new))
            tokens.extend(new)

        begin = time.perf_counter()
        stats = generate(request, hear)
        self.seconds.append(time.perf_counter() - begin)
        self.gaps += np.diff(times).tolist()
        if stats is not None:
            self.stats.append(stats)
        if index == len(self.rates):
            self.rates.append([])
            self.late.append([])
            self.texts.append(())
        self.texts[index] = tuple(tokens)
        since = times[0] if stats is None else begin + stats.prefill
        self.rates[index].append(_rate(len(tokens) - (stats is None), times[-1] - since))
        self.late[index].append(_rate(len(tokens) - counts[0], times[-1] - times[0]))

    @property
    def by_text(self) -> FloatArray:
        """The median rate of each text."""
        return _medians(self.rates)


def bench(
    requests: Sequence[Request],
    config: EngineConfig | None = None,
    *,
    rounds: int = 3,
    transformers: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Time every way of decoding on the same texts.

    Args:
        requests: what to generate, greedily. `transformers` knows no grammars: it writes what it likes.
        config: models, devices, lookahead and fan-out. The method is of no interest.
        rounds: how often each text is generated.
        transformers: run its plain, assisted and prompt-lookup decoding too; CPU and Llama drafts only.
        progress: hears a line now and then.

    Returns:
        One JSON object. `ar1`, `ar2`, `sd`, `ssd`, `hf`, `hf_assisted`, `hf_lookup`: tokens a second, medians over the
        texts. `hit_rate`. `ratios`: medians over the texts of paired rates, each with its 95 % interval, bootstrapped
        over the texts; `ratios_late`: of the tokens behind those that came first together, which in a short text are
        much of it. `predicted`: what follows from the times of the parts, the tokens a round and the hits. The rest
        says what was measured, of what and where.

    Raises:
        InvalidInput: fewer than two texts, or no draft.
    """
    config = config or EngineConfig()
    requests = [replace(request, temperature=0.0, deadline=None) for request in requests]
    if len(requests) < 2 or rounds < 1 or config.draft is None:
        raise InvalidInput("bench: at least two texts, one round and a draft are needed")
    torch.set_num_threads(1)
    dtype, draft_dtype = config.types()
    load_before = os.getloadavg()
    target, tokenizer = load(config.target, dtype, config.device)
    draft = load_model(config.draft, draft_dtype, config.draft_device)
    context = min(config.context, target.config.context)
    with ExitStack() as stack:
        estimates = _estimate(target, draft, config, context, requests[: max(2, len(requests) // 4)])
        choice = choose(config, target, draft, context, estimates)
        lookaheads = choice.lookaheads
        progress(f"lookahead: SD {lookaheads['sd']}, SSD {lookaheads['ssd']} in {choice.budget} branches")
        ways = _ours(stack, target, draft, tokenizer, config, context, choice)
        if transformers:
            ways |= _theirs(config, lookaheads["sd"], tokenizer)
        runs = {name: Runs() for name in ways}
        names = list(ways)
        for generate in ways.values():
            generate(requests[0], lambda _: None)  # the first takes longer
        for number in range(rounds):
            for index, request in enumerate(requests):
                turn = (number + index) % len(names)
                for name in names[turn:] + names[:turn]:
                    runs[name].run(ways[name], request, index)
                progress(f"round {number + 1} of {rounds}, text {index + 1} of {len(requests)}")
    pairs = [(a, b) for a, b in RATIOS if a in runs and b in runs]
    figures = {
        **{name: float(np.nanmedian(run.by_text)) for name, run in runs.items()},
        "hit_rate": _share(hit for stats in runs["ssd"].stats for hit in stats.hits if hit is not None),
        "ratios": {f"{a}/{b}": _ratio(runs[a].rates, runs[b].rates) for a, b in pairs},
        "ratios_late": {f"{a}/{b}": _ratio(runs[a].late, runs[b].late) for a, b in pairs},
        "predicted": _predict(choice.times, lookaheads, runs),
        "intervals": {name: _interval(run.by_text) for name, run in runs.items()},
        "same_text": {name: _share(np.array(_equal(run, runs["ar1"]))) for name, run in runs.items()},
        "rounds_of": {name: _rounds(run) for name, run in runs.items() if run.stats},
        "latency": {name: _latency(run) for name, run in runs.items()},
        "setup": {
            "target": config.target,
            "draft": config.draft,
            "dtype": dtype,
            "draft_dtype": draft_dtype,
            "devices": [config.device, config.draft_device],
            "cores": config.cores,
            "lookahead": {"sd": lookaheads["sd"], "ssd": lookaheads["ssd"]},
            "budget": choice.budget,
            "texts": len(requests),
            "rounds": rounds,
            "grammar": any(request.grammar is not None for request in requests),
            "tokens": sum(len(text) for text in runs["ar1"].texts),
            "processor": torch.cpu.get_capabilities().get("cpu_name", ""),
            "processors": os.cpu_count(),
            "load": {"before": load_before, "after": os.getloadavg()},
            "times": {
                "verify": {str(k): seconds for k, seconds in choice.times.verify.items()},
                "step": choice.times.step,
                "tree_step": choice.times.tree_step,
            },
        },
    }
    return _as_json(figures)


def check_equality(
    requests: Sequence[Request], config: EngineConfig, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Any]:
    """Whether SD and SSD say, token for token, what AR says, greedily; use float32 or wider.

    Returns:
        `texts`, `tokens`, and for `sd` and `ssd` the indices of the texts that differ; SSD's `hit_rate`.
    """
    if config.draft is None:
        raise InvalidInput("a draft is needed to check that drafting changes nothing")
    torch.set_num_threads(config.threads)
    dtype, draft_dtype = config.types()
    target, tokenizer = load(config.target, dtype, config.device)
    draft = load_model(config.draft, draft_dtype, config.draft_device)
    context = min(config.context, target.config.context)
    with ExitStack() as stack:
        choice = choose(config, target, draft, context, config.estimates())
        ways = _ours(stack, target, draft, tokenizer, config, context, choice)
        runs = {name: Runs() for name in ("ar1", "sd", "ssd")}
        for index, request in enumerate(requests):
            for name, run in runs.items():
                run.run(ways[name], replace(request, temperature=0.0, deadline=None), index)
            progress(f"text {index + 1} of {len(requests)}")
    differ = {name: [i for i, same in enumerate(_equal(runs[name], runs["ar1"])) if not same] for name in ("sd", "ssd")}
    hits = [hit for stats in runs["ssd"].stats for hit in stats.hits if hit is not None]
    tokens = sum(len(text) for text in runs["ar1"].texts)
    return {"texts": len(requests), "tokens": tokens, "differ": differ, "hit_rate": _share(hits)}


def describe(figures: Mapping[str, Any]) -> str:
    """The figures of `bench` as a table for people."""
    names = {
        "ar1": "AR, 1 thread",
        "ar2": "AR, 2 threads",
        "sd": "SD",
        "ssd": "SSD",
        "hf": "transformers",
        "hf_assisted": "transformers, assisted",
        "hf_lookup": "transformers, prompt lookup",
    }
    lines = [f"{'':28}  tokens/s  95 % interval"]
    for name, title in names.items():
        if name in figures:
            low, high = figures["intervals"][name]
            lines.append(f"{title:28}  {figures[name]:8.1f}  [{low:.1f}, {high:.1f}]")
    for name, ratio in figures["ratios"].items():
        predicted = figures["predicted"].get(name)
        expected = "" if predicted is None else f", predicted {predicted:.2f}"
        lines.append(f"{name:28}  {ratio['median']:8.2f}  [{ratio['ci'][0]:.2f}, {ratio['ci'][1]:.2f}]{expected}")
    lines.append(f"{'hit rate':28}  {figures['hit_rate']:8.2f}")
    return "\n".join(lines)


# --- ways of decoding --------------------------------------------------------------------------------------------


def _estimate(target: Llama, draft: Llama, config: EngineConfig, context: int, requests: Sequence[Request]) -> Outcomes:
    """Acceptance and exponent on some of the texts: the lookahead is chosen for this kind of text."""
    probe = Draft(draft, config.speculation(8), context)
    probe.outcomes = config.estimates()
    decoder = SpeculativeDecoder(target, Serial(probe), context)
    for request in requests:
        decoder.generate(request)
    return probe.outcomes


def _ours(
    stack: ExitStack,
    target: Llama,
    draft: Llama,
    tokenizer: Tokenizer,
    config: EngineConfig,
    context: int,
    choice: Choice,
) -> dict[str, Generate]:
    """AR on one and two threads, SD, SSD."""
    beside = Beside(draft_source(config, choice, context, tokenizer))
    ssd = SpeculativeDecoder(target, beside, context)
    stack.callback(ssd.close)
    beside.wait()
    ar = SpeculativeDecoder(target, Silent(), context)
    serial = Serial(Draft(draft, config.speculation(choice.lookaheads["sd"]), context))

    def way(decoder: SpeculativeDecoder, threads: int = 1) -> Generate:
        def generate(request: Request, hear: Callable[[Sequence[int]], None]) -> DecodeStats:
            before = os.sched_getaffinity(0)
            torch.set_num_threads(threads)
            if config.cores is not None and threads == 1:
                os.sched_setaffinity(0, {config.cores[0]})
            try:
                generation: Generation = decoder.generate(request, hear)
            finally:
                torch.set_num_threads(1)
                os.sched_setaffinity(0, before)
            return generation.stats

        return generate

    return {
        "ar1": way(ar),
        "ar2": way(ar, threads=2),
        "sd": way(SpeculativeDecoder(target, serial, context)),
        "ssd": way(ssd),
    }


def _theirs(config: EngineConfig, lookahead: int, tokenizer: Tokenizer) -> dict[str, Generate]:
    """`transformers` with the same weights: plain, with the draft as assistant, with n-grams of the prompt."""
    import transformers

    dtype, draft_dtype = config.types()

    transformers.logging.set_verbosity_error()
    with tempfile.TemporaryDirectory() as folder:
        save(load_model(config.target, dtype, pack=False), tokenizer, Path(folder))
        target: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    assistant = as_transformers(load_model(config.draft or "", draft_dtype, pack=False))
    assistant.generation_config.num_assistant_tokens = lookahead
    assistant.generation_config.num_assistant_tokens_schedule = "constant"
    assistant.generation_config.assistant_confidence_threshold = 0.0

    def way(**options: Any) -> Generate:
        def generate(request: Request, hear: Callable[[Sequence[int]], None]) -> None:
            prompt = torch.tensor([request.prompt])
            target.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=request.max_tokens,
                do_sample=False,
                eos_token_id=sorted(request.end) or None,
                pad_token_id=0,
                streamer=Listener(hear),
                **options,
            )

        return generate

    return {
        "hf": way(),
        "hf_assisted": way(assistant_model=assistant),
        "hf_lookup": way(prompt_lookup_num_tokens=lookahead),
    }


class Listener:
    """What `transformers` calls a streamer: hears the tokens as they come, the prompt first."""

    def __init__(self, hear: Callable[[Sequence[int]], None]) -> None:
        self._hear, self._prompted = hear, False

    def put(self, value: Tensor) -> None:
        if self._prompted:
            self._hear(value.flatten().tolist())
        self._prompted = True

    def end(self) -> None: ...


class PartialHead(nn.Module):
    """A head over a part of the vocabulary as one over all of it: the other tokens are impossible."""

    def __init__(self, weight: Tensor, tokens: Tensor, vocab_size: int) -> None:
        super().__init__()
        self.weight, self._tokens, self._vocab_size = nn.Parameter(weight, False), tokens, vocab_size

    def forward(self, x: Tensor) -> Tensor:
        logits = x.new_full((*x.shape[:-1], self._vocab_size), torch.finfo(x.dtype).min)
        logits[..., self._tokens] = F.linear(x, self.weight)
        return logits


@torch.no_grad()
def as_transformers(draft: Llama) -> Any:
    """A draft, loaded without packing, as `transformers` runs it.

    Raises:
        InvalidInput: it has biases or norms on the heads, which its Llama has not.
    """
    import transformers

    config = draft.config
    if config.attention_bias or config.qk_norm:
        raise InvalidInput("transformers' figures are for drafts of Llama's architecture; leave them out for this one")
    model: Any = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden_size,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            intermediate_size=config.intermediate_size,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
            tie_word_embeddings=False,
            max_position_embeddings=config.context,
        )
    )
    model.to(draft.dtype)
    tensors = dict(split_tensors(draft))
    head = tensors.pop("lm_head.weight", draft.head.weight)
    missing, _ = model.load_state_dict(tensors, strict=False)
    assert set(missing) <= {"lm_head.weight", "model.embed_tokens.weight"}
    model.model.embed_tokens.weight.copy_(draft.embedding(torch.arange(config.vocab_size)))
    tokens = torch.arange(config.vocab_size) if draft.head_tokens is None else draft.head_tokens
    model.lm_head = PartialHead(head, tokens, config.vocab_size)
    return model.eval()


# --- figures -----------------------------------------------------------------------------------------------------


def _as_json(value: Any) -> Any:
    """Where there is no figure, null: JSON has no nan."""
    if isinstance(value, dict):
        return {name: _as_json(entry) for name, entry in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def _equal(run: Runs, reference: Runs) -> list[bool]:
    return [a == b for a, b in zip(run.texts, reference.texts, strict=True)]


def _share(values: Iterable[Any]) -> float:
    listed = list(values)
    return float(np.mean(listed)) if listed else float("nan")


def _interval(values: FloatArray, samples: int = 2000) -> list[float]:
    """The 95 % interval of the median, bootstrapped over the texts."""
    values = values[np.isfinite(values)]
    drawn = np.random.default_rng(0).choice(values, (samples, len(values)))
    return np.percentile(np.median(drawn, axis=1), [2.5, 97.5]).tolist()


def _rate(tokens: int, seconds: float) -> float:
    return tokens / seconds if seconds > 0 else float("nan")


def _medians(rates: Sequence[Sequence[float]]) -> FloatArray:
    """Of each text."""
    return np.nanmedian(np.array(rates), axis=1)


def _ratio(rates: Sequence[Sequence[float]], others: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The median over the texts of paired rates."""
    ratios = _medians(rates) / _medians(others)
    return {"median": float(np.nanmedian(ratios)), "ci": _interval(ratios)}


def _rounds(run: Runs) -> dict[str, Any]:
    """What the rounds of verification looked like: counts are means, times medians [s]."""

    def column(name: str) -> Iterator[float]:
        return (value for stats in run.stats for value in getattr(stats, name))

    def middle(name: str) -> float | None:
        values = list(column(name))
        return float(np.median(values)) if values else None

    by_accepted: dict[int, list[bool]] = {}
    for stats in run.stats:
        for accepted, hit in zip(stats.accepted, stats.hits[1:], strict=False):
            if hit is not None:
                by_accepted.setdefault(accepted, []).append(hit)
    return {
        "accepted": _share(column("accepted")),
        "speculated": _share(column("speculated")),
        "acceptance": _acceptance(run),
        "verify": middle("verify"),
        "wait": middle("draft"),
        "build": middle("build"),
        "hits_by_accepted": {str(k): {"rate": _share(h), "n": len(h)} for k, h in sorted(by_accepted.items())},
    }


def _acceptance(run: Runs) -> float:
    """The share of drafted tokens accepted of those that were decided on."""
    accepted = sum(sum(stats.accepted) for stats in run.stats)
    rejected = sum(a < s for stats in run.stats for a, s in zip(stats.accepted, stats.speculated, strict=True))
    return accepted / (accepted + rejected) if accepted + rejected else float("nan")


def _latency(run: Runs) -> dict[str, float]:
    """The 95th percentiles: of a whole text, and between two moments at which tokens become final [s]."""
    return {
        "text_p95": float(np.percentile(run.seconds, 95)),
        "gap_p95": float(np.percentile(run.gaps, 95)) if run.gaps else float("nan"),
    }


def _predict(times: Times, lookaheads: Mapping[str, int], runs: Mapping[str, Runs]) -> dict[str, float]:
    """The ratios that follow from the times measured apart, and from the tokens a round and the hits of the runs.

    E(a, K) is not asked: of the tokens in a round, AR's too, those that a grammar forces are no matter of acceptance.
    """

    def tokens(name: str) -> float:
        return 1.0 + _share(accepted for stats in runs[name].stats for accepted in stats.accepted)

    def verification(name: str) -> float:
        return times.verification(_share(drafted for stats in runs[name].stats for drafted in stats.speculated))

    chain = {name: lookaheads[name] * times.step for name in ("sd", "ssd")}
    hits = _share(hit for stats in runs["ssd"].stats for hit in stats.hits if hit is not None)
    hit, miss = max(verification("ssd"), times.build(lookaheads["ssd"])), verification("ssd") + chain["ssd"]
    ar = tokens("ar1") / verification("ar1")
    sd = tokens("sd") / (verification("sd") + chain["sd"])
    ssd = tokens("ssd") / (hits * hit + (1.0 - hits) * miss)
    return {"sd/ar1": sd / ar, "ssd/sd": ssd / sd, "ssd/ar1": ssd / ar}
