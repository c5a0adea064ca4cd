"""The shipped models at a temperature above 0: what is said has the target's law, though a draft had its say."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats

from worldpilot.models.language.base import Request
from worldpilot.models.language.decoders import Serial, SpeculativeDecoder
from worldpilot.models.language.loaders import load, load_model
from worldpilot.models.language.speculation import Draft, DraftConfig

pytestmark = pytest.mark.slow
SAMPLES = 200
CONTEXT = 64
LIKELIEST = 6  # tokens that are counted one by one; the rest of the vocabulary is one cell


@torch.inference_mode()
def test_a_token_has_the_targets_law_whether_drafted_or_not() -> None:
    """Chi-square of the first choice of an answer, of which the draft proposed some by a law far from the target's."""
    target, tokenizer = load("reasoning")
    asked = tokenizer.chat([{"role": "user", "content": "Do something with the block."}])
    prompt = (*asked, *tokenizer.encode('{"'))
    request = Request(prompt, max_tokens=2, temperature=1.2)
    serial = Serial(Draft(load_model("draft"), DraftConfig(1, 0, scale=0.5, top=2), CONTEXT))
    decoder = SpeculativeDecoder(target, serial, CONTEXT)
    said = [decoder.generate(replace(request, seed=seed)) for seed in range(SAMPLES)]

    tokens = torch.tensor(prompt)
    cache = target.cache(CONTEXT)
    law = (target.forward(tokens, cache)[-1].float() / request.temperature).softmax(-1).numpy()
    first = np.array([generation.tokens[0] for generation in said])
    assert p_value(first, law) > 1e-3
    accepted = [generation.stats.accepted[0] for generation in said]
    assert {0, 1} == set(accepted)  # both ways were gone

    colder = law**2 / (law**2).sum()
    assert p_value(first, colder) < 1e-6  # a temperature of half as much would have been noticed


def p_value(tokens: npt.NDArray[np.int64], law: npt.NDArray[np.floating]) -> float:
    """Chi-square of the counts of the likeliest tokens, and of all others together, against a distribution."""
    likeliest = np.argsort(-law)[:LIKELIEST]
    counts = np.array([(tokens == token).sum() for token in likeliest])
    expected = law[likeliest].astype(np.float64) * len(tokens)
    counts, expected = np.append(counts, len(tokens) - counts.sum()), np.append(expected, len(tokens) - expected.sum())
    return float(stats.chisquare(counts, expected).pvalue)
