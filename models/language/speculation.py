"""What the draft model does: draft a chain, and prepare what follows every likely outcome of its verification.

A chain and a tree are the same thing here: branches that are drafted side by side, one forward a step, each seeing a
beginning of the trunk (the text read so far) and its own slots by the mask. A chain is a tree of one branch.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import numpy as np
import torch
from torch import Tensor

from worldpilot.errors import InvalidInput
from worldpilot.models.language.base import GrammarState, Request
from worldpilot.models.language.context import PREFILL_CHUNK, Context, Model
from worldpilot.models.language.fan_out import RANKS, Outcomes, fan_out, outcome_probabilities
from worldpilot.models.language.sampling import IntArray, Law, Noise, Uniforms, saguaro

SUPPORT = 128  # q' lives on so many of the draft's likeliest tokens; what crosses to the target's process stays small
FORCED = 24  # tokens forced by the grammar that a speculation carries beside its K: the draft gets them for nothing
NONE: IntArray = np.empty(0, np.int64)


@dataclass(frozen=True)
class Speculation:
    """Drafted tokens for the target to verify."""

    tokens: tuple[int, ...]
    laws: tuple[Law | None, ...]  # q' that each was drawn from; None: it was certain (greedy, or forced by the grammar)
    hit: bool | None = None  # whether it had been prepared; None: there was nothing to look it up in
    build: float = float("nan")  # how long it took to prepare the outcomes of the speculation before [s]


@dataclass(frozen=True)
class DraftConfig:
    """How to speculate."""

    lookahead: int = 6  # K, tokens drafted in a speculation, forced ones not counted
    budget: int = 16  # B, branches of the tree; 0: no outcomes are prepared
    scale: float = 1.0  # C of Saguaro sampling, at temperature > 0
    top: int = 4  # F of Saguaro sampling

    def __post_init__(self) -> None:
        if self.lookahead < 1 or self.budget < 0 or self.top < 0 or not 0 <= self.scale <= 1:
            raise InvalidInput(
                "speculation: lookahead must be at least 1, budget and top at least 0, scale within [0, 1], "
                f"got {self.lookahead}, {self.budget}, {self.top}, {self.scale}"
            )

    def slots(self, context: int) -> int:
        """The capacity of the draft's cache for texts of up to `context` tokens."""
        return context + (self.budget + 1) * (self.lookahead + FORCED + 1)


@dataclass
class Branch:
    """A continuation while it is drafted: it sees the first `trunk` slots of the cache and then its own."""

    trunk: int
    pending: list[int]  # tokens it has still to read
    position: int  # of the next drafted token in the output
    room: int  # how many tokens may still be drafted before the text is full
    lookahead: int  # how many of them may be more than forced
    state: GrammarState | None
    free: int = FORCED
    slots: list[int] = field(default_factory=list)
    read: list[int] = field(default_factory=list)  # the tokens in them
    tokens: list[int] = field(default_factory=list)  # drafted
    laws: list[Law | None] = field(default_factory=list)
    rankings: list[IntArray] = field(
        default_factory=list
    )  # what might have been drafted, likeliest first; forced: none
    chances: list[float] = field(default_factory=list)  # that each drafted token is accepted, as far as the draft knows
    blocked: bool = False  # by the draft's head, which has no token that the grammar allows, or by too many forced ones
    ended: bool = False  # by an end token

    @property
    def open(self) -> bool:
        """Whether there is more to draft."""
        return self.lookahead > 0 and self.room > 0 and not self.ended and not self.blocked

    def draft(self, token: int, law: Law | None, ranking: IntArray, chance: float, end: Collection[int]) -> None:
        """Go on with a drafted token, and with those that the grammar then forces: they cost nothing."""
        self.lookahead -= 1
        self._append(token, law, ranking, chance, end)
        self.draft_forced(end)

    def draft_forced(self, end: Collection[int]) -> None:
        """Go on with the tokens that the grammar forces."""
        while self.state is not None and not self.ended and (forced := self.state.forced()):
            for token in forced:
                if self.room <= 0 or self.free == 0:
                    self.blocked = True
                    return
                self.free -= 1
                self._append(token, None, NONE, 1.0, end)
                if self.ended:
                    return

    def _append(self, token: int, law: Law | None, ranking: IntArray, chance: float, end: Collection[int]) -> None:
        self.tokens.append(token)
        self.laws.append(law)
        self.rankings.append(ranking)
        self.chances.append(chance)
        self.pending.append(token)
        self.position += 1
        self.room -= 1
        self.ended = token in end
        if self.state is not None and not self.ended:
            self.state.advance([token])


class Draft:
    """The draft model at work on one request after another.

    `start` and `advance` give the speculation that follows; `build` prepares those that may follow that one. The cache
    holds the trunk: the text, and behind it what was drafted and is read. The slots of other branches are dropped
    before anything is drafted behind them, so they never reach a speculation.

    Args:
        model: over the target's tokens, its head perhaps over a part of them.
        config: how to speculate.
        context: the longest text the target can take.
    """

    def __init__(self, model: Model, config: DraftConfig, context: int) -> None:
        self._config = config
        self._length = min(context, model.config.context)
        self._context = Context(model, config.slots(self._length))
        head = model.head_tokens
        self._head = None if head is None else head.cpu().numpy()
        self._columns = {} if self._head is None else {token: i for i, token in enumerate(self._head.tolist())}
        self._prepared: dict[tuple[int, int], Branch] = {}  # the speculation cache: (accepted, bonus) -> what follows
        self._asked = False  # whether outcomes of the current speculation were prepared
        self.outcomes = Outcomes()  # observed over all requests

    def start(self, request: Request, noise: Noise, output: Sequence[int] = ()) -> Speculation:
        """Begin a text, or go on behind the output so far, and draft. `noise` is that of the target's side."""
        self._request, self._noise, self._text = request, noise, [*request.prompt, *output]
        self._state = None if request.grammar is None else request.grammar.start()
        if self._state is not None:
            self._state.advance(output)
        self._prepared.clear()
        self._asked = False
        return self._just_in_time()

    def advance(self, tokens: Sequence[int], verified: bool = True) -> Speculation:
        """Go past tokens that have become final, and draft on.

        Args:
            tokens: the accepted ones of the last speculation and the bonus; any others if it was not `verified`.
            verified: these tokens are the outcome of verifying the last speculation.
        """
        if verified:
            self._observe(tokens)
        self._text += tokens
        if self._state is not None:
            self._state.advance(tokens)
        branch = self._prepared.get((len(tokens) - 1, tokens[-1])) if verified else None
        hit = branch is not None if self._asked else None
        self._prepared.clear()
        self._asked = False
        return self._just_in_time(hit) if branch is None else self._complete(branch, hit)

    def build(self) -> Iterator[None]:
        """Prepare what follows every likely outcome of the current speculation, a forward at a time.

        It may be left between two forwards: a branch that is not complete is completed alone when its outcome comes.
        """
        current, end = self._current, self._request.end
        self._asked = True
        if current.room < 0:  # beyond the draft's context
            return
        if current.pending:
            (row,) = self._rank([current], self._read([current]))
            self._make_trunk(current)
            self._rankings = [*current.rankings, NONE if current.ended else row.tokens]
            yield
        # What was drafted and rejected cannot be the bonus: its residual is zero. Behind an end token nothing follows.
        barred = [end | {token} for token in current.tokens] + [end]
        bonuses = [[t for t in row.tolist() if t not in no] for row, no in zip(self._rankings, barred, strict=True)]
        outcomes = outcome_probabilities(current.chances, ends=current.ended)
        available = [len(bonus) for bonus in bonuses]
        sizes = fan_out(outcomes, self.outcomes.exponent, self._config.budget, available)
        state = None if self._state is None else self._state.fork()
        for k, (bonus, size) in enumerate(zip(bonuses, sizes, strict=True)):
            for token in bonus[:size]:
                fork = None if state is None else state.fork()
                if fork is not None:
                    fork.advance([token])
                self._prepared[k, token] = self._branch(len(self._text) + k, [token], fork)
            if state is not None and k < len(current.tokens) and current.tokens[k] not in end:
                state.advance([current.tokens[k]])
        while growing := [branch for branch in self._prepared.values() if branch.open]:
            self._step(growing)
            yield

    def measure(self, repeats: int = 5) -> tuple[float, float]:
        """The median times of a step of a chain and of a step of the whole tree [s], behind a text of 128 tokens."""
        text = max(1, min(128, self._length - 2 * self._config.lookahead - 3))
        request = Request(prompt=(0,) * text, max_tokens=self._length - text)
        steps: list[float] = []
        tree_steps: list[float] = []
        for _ in range(repeats + 1):
            begin = time.perf_counter()
            drafted = self.start(request, Uniforms(0, request.max_tokens))
            ready = time.perf_counter()
            steps.append((ready - begin) / max(1, len(drafted.tokens)))
            trees = list(_timed(self.build()))[1:]  # the first reads what was drafted
            tree_steps.append(sum(trees) / len(trees) if trees else steps[-1])
        return median(steps[1:]), median(tree_steps[1:])  # the first warms up

    def _branch(self, trunk: int, pending: list[int], state: GrammarState | None) -> Branch:
        """A branch behind the first `trunk` slots and the pending tokens, with what the grammar forces."""
        length = trunk + len(pending)
        position = length - len(self._request.prompt)
        room = min(self._request.max_tokens - position, self._length - length) - 1  # one is for the bonus
        branch = Branch(trunk, pending, position, room, self._config.lookahead, state)
        branch.draft_forced(self._request.end)
        return branch

    def _just_in_time(self, hit: bool | None = None) -> Speculation:
        """Draft what follows the text now."""
        self._context.keep_common(self._text)
        known = len(self._context.tokens)
        state = None if self._state is None else self._state.fork()
        branch = self._branch(known, self._text[known:], state)
        while branch.open and len(branch.pending) > PREFILL_CHUNK:
            self._context.read(branch.pending[:PREFILL_CHUNK], last=1)
            del branch.pending[:PREFILL_CHUNK]
            branch.trunk += PREFILL_CHUNK
        return self._complete(branch, hit)

    def _complete(self, branch: Branch, hit: bool | None) -> Speculation:
        """Draft the rest of a branch alone and make it the trunk."""
        while branch.open:
            self._step([branch])
        self._make_trunk(branch)
        self._current, self._rankings = branch, [*branch.rankings, NONE]
        return Speculation(tuple(branch.tokens), tuple(branch.laws), hit)

    def _make_trunk(self, branch: Branch) -> None:
        """Keep what the branch has read and nothing else."""
        self._context.cache.gather([*range(branch.trunk), *branch.slots])
        self._context.tokens = self._context.tokens[: branch.trunk] + branch.read
        branch.trunk, branch.slots, branch.read = len(self._context.tokens), [], []

    def _step(self, branches: Sequence[Branch]) -> None:
        """One more drafted token for every branch: one forward."""
        logits, end = self._read(branches), self._request.end
        for branch, law in zip(branches, self._rank(branches, logits), strict=True):
            if not len(law.tokens):
                branch.blocked = True
            elif self._request.temperature == 0:  # the more certain the draft, the likelier the target says the same
                branch.draft(int(law.tokens[0]), None, law.tokens, float(law.probabilities[0]), end)
            else:
                index, chance = self._noise.draft(branch.position, law.probabilities), self.outcomes.acceptance
                branch.draft(int(law.tokens[index]), law, law.tokens, chance, end)

    def _read(self, branches: Sequence[Branch]) -> Tensor:
        """Read the pending tokens of all branches in one forward; the logits after the last of each, (B, V')."""
        model, cache = self._context.model, self._context.cache
        filled = cache.length
        tokens: list[int] = []
        lasts: list[int] = []
        positions: list[int] = []
        spans: list[tuple[Branch, int, int]] = []
        for branch in branches:
            row, end = len(tokens), len(tokens) + len(branch.pending)
            first = branch.trunk + len(branch.slots)
            positions += range(first, first + end - row)
            tokens += branch.pending
            lasts.append(end - 1)
            spans.append((branch, row, end))
        mask = None
        if positions[-1] != filled + len(tokens) - 1:  # a tree; a chain sees all that is in the cache
            sees = np.zeros((len(tokens), filled + len(tokens)), np.bool_)
            for branch, row, end in spans:
                sees[row:end, : branch.trunk] = True
                sees[row:end, branch.slots] = True
                sees[row:end, filled + row : filled + end] = np.tri(end - row, dtype=np.bool_)
            mask = torch.from_numpy(sees).to(model.device)
        for branch, row, end in spans:
            branch.slots += range(filled + row, filled + end)
            branch.read += branch.pending
            branch.pending = []
        places = torch.tensor(positions, device=model.device)
        return model.forward(torch.tensor(tokens, device=model.device), cache, places, mask)[lasts]

    def _rank(self, branches: Sequence[Branch], logits: Tensor) -> list[Law]:
        """q' of each branch, of logits (B, V'): on the likeliest tokens that the grammar allows, in their order.

        At temperature 0 it is the draft's distribution at temperature 1: the likeliest token is drafted, the others
        say how certain that is.
        """
        states = [branch.state for branch in branches if branch.state is not None]
        if states:
            masks = np.stack([state.mask() for state in states])
            masks = masks if self._head is None else masks[:, self._head]
            logits = logits.masked_fill(~torch.from_numpy(masks).to(logits.device), -torch.inf)
            for row, state in zip(logits, states, strict=True):
                for token, value in state.bias().items():
                    if self._head is None or token in self._columns:
                        row[self._columns.get(token, token)] += value
        temperature = self._request.temperature
        values, columns = logits.topk(min(SUPPORT if temperature else RANKS, logits.shape[1]), dim=-1)
        z = values.cpu().numpy().astype(np.float64)
        tokens = columns.cpu().numpy()
        tokens = tokens if self._head is None else self._head[tokens]
        laws: list[Law] = []
        for row, names, count in zip(z, tokens, np.isfinite(z).sum(axis=1).tolist(), strict=True):
            weights = np.exp((row[:count] - row[0]) / (temperature or 1.0))
            scale = self._config.scale if temperature else 1.0
            laws.append(Law(names[:count], saguaro(weights, scale, self._config.top)))
        return laws

    def _observe(self, tokens: Sequence[int]) -> None:
        """Learn how the current speculation fared: what was accepted, and the bonus's rank for the draft."""
        current, accepted = self._current, len(tokens) - 1
        ranking = self._rankings[accepted]
        rejected = accepted < len(current.tokens)
        if rejected:
            ranking = ranking[ranking != current.tokens[accepted]]
        chosen = sum(len(row) > 0 for row in current.rankings[:accepted])
        place = np.flatnonzero(ranking == tokens[-1])
        rank = None if not len(ranking) else int(place[0]) + 1 if len(place) else len(ranking) + 1
        self.outcomes.observe(chosen, rejected, rank)


def _timed(steps: Iterator[None]) -> Iterator[float]:
    """The time that each step takes [s]."""
    begin = time.perf_counter()
    for _ in steps:
        yield time.perf_counter() - begin
        begin = time.perf_counter()
