"""Short reads of a model on a GPU as CUDA graphs: one launch each instead of hundreds, which would take longer than the
work they start."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

if TYPE_CHECKING:
    from worldpilot.models.language.transformer import KVCache, Llama

LONGEST = 64  # tokens of a read that is worth a graph: above it the work itself takes longer


@dataclass(frozen=True)
class _Step:
    """A recorded step on T tokens and a cache of S slots, with the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    tokens: Tensor  # (T,)
    positions: Tensor  # (T,)
    slots: Tensor  # (T,), where the tokens' keys and values go
    sees: Tensor  # (T, S), bool
    logits: Tensor  # (T, V')


class Captures:
    """The graphs of a model, recorded as they are needed: one for each number of tokens and each cache."""

    def __init__(self, model: "Llama") -> None:
        self._model = model
        self._steps: WeakKeyDictionary[KVCache, dict[int, _Step]] = WeakKeyDictionary()

    def forward(
        self, tokens: Tensor, cache: "KVCache", positions: Tensor | None, mask: Tensor | None, last: int | None
    ) -> Tensor:
        """As `Llama.forward`."""
        count, end = len(tokens), cache.length + len(tokens)
        steps = self._steps.setdefault(cache, {})
        step = steps.get(count)
        if step is None:
            step = steps[count] = self._record(cache, count)
        torch.arange(cache.length, end, out=step.slots)
        step.tokens.copy_(tokens)
        step.positions.copy_(step.slots if positions is None else positions)
        if mask is None:
            step.sees.copy_(torch.arange(cache.capacity, device=tokens.device) <= step.slots[:, None])
        else:
            step.sees[:, :end].copy_(mask)
            step.sees[:, end:].fill_(False)
        step.graph.replay()
        cache.length = end
        return step.logits[0 if last is None else count - last :].clone()  # the next replay writes there again

    @torch.inference_mode(False)
    @torch.no_grad()
    def _record(self, cache: "KVCache", count: int) -> _Step:
        """Record a step; it writes into the slots behind the cache's last, which hold nothing yet."""
        device = self._model.device
        slots = torch.arange(cache.length, cache.length + count, device=device)
        tokens, positions = torch.zeros_like(slots), torch.zeros_like(slots)
        sees = torch.ones(count, cache.capacity, dtype=torch.bool, device=device)
        beside = torch.cuda.Stream(device)
        beside.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(beside):  # libraries make their workspaces at a first run, which must not be recorded
            for _ in range(2):
                self._model.step(tokens, cache, positions, slots, sees)
        torch.cuda.current_stream(device).wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            logits = self._model.step(tokens, cache, positions, slots, sees)
        return _Step(graph, tokens, positions, slots, sees, logits)
