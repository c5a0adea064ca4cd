"""The laws a cached decoder must keep: however tokens are fed, the logits are those of the whole text."""

import pytest
import torch

from worldpilot.errors import InvalidInput
from worldpilot.models.language.transformer import KVCache, Llama, Llama3Scaling, LlamaConfig, PackedLinear

PLAIN = LlamaConfig(vocab_size=50, hidden_size=32, layers=3, heads=4, kv_heads=2, head_dim=8, intermediate_size=48)
RICH = LlamaConfig(
    vocab_size=50,
    hidden_size=24,
    layers=2,
    heads=6,
    kv_heads=1,
    head_dim=16,
    intermediate_size=40,
    attention_bias=True,
    qk_norm=True,
    tied_embeddings=False,
    rope_scaling=Llama3Scaling(8.0, 1.0, 4.0, 32),
)


@pytest.fixture(params=[PLAIN, RICH], ids=["plain", "rich"])
def model(request: pytest.FixtureRequest) -> Llama:
    torch.manual_seed(1)
    return Llama(request.param, torch.float64).requires_grad_(False)


def tokens(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(50, (count,), generator=torch.Generator().manual_seed(seed))


def whole(model: Llama, text: torch.Tensor) -> torch.Tensor:
    return model(text, model.cache(len(text)))


@pytest.mark.parametrize("parts", [[1] * 12, [5, 7], [3, 1, 8], [11, 1]])
def test_fed_in_parts_the_logits_are_those_of_the_whole(model: Llama, parts: list[int]) -> None:
    text, cache = tokens(12), model.cache(16)
    logits = torch.cat([model(part, cache) for part in text.split(parts)])
    torch.testing.assert_close(logits, whole(model, text), rtol=0, atol=1e-12)
    assert cache.length == 12


def test_whole_texts_at_once_give_the_same(model: Llama) -> None:
    texts = torch.stack([tokens(9, 1), tokens(9, 2)])
    expected = torch.stack([whole(model, text) for text in texts])
    torch.testing.assert_close(model.teacher_forced(texts), expected, rtol=0, atol=1e-12)
    at = tokens(18, 3).view(2, 9) < 20
    torch.testing.assert_close(model.teacher_forced(texts, at), expected[at], rtol=0, atol=1e-12)


def test_the_last_logits_are_the_last_of_all(model: Llama) -> None:
    text = tokens(8)
    torch.testing.assert_close(model(text, model.cache(8), last=2), whole(model, text)[-2:], rtol=0, atol=1e-12)


def test_after_a_cut_nothing_of_what_was_cut_is_left(model: Llama) -> None:
    kept, wrong, right = tokens(6), tokens(5, 1), tokens(4, 2)
    cache = model.cache(32)
    model(torch.cat((kept, wrong)), cache)
    cache.truncate(len(kept))
    logits = model(right, cache)
    fresh = model.cache(32)
    torch.testing.assert_close(logits, model(torch.cat((kept, right)), fresh)[len(kept) :], rtol=0, atol=1e-12)
    for layer in range(model.config.layers):
        torch.testing.assert_close(cache.slots(layer), fresh.slots(layer), rtol=0, atol=1e-12)


# A tree behind 6 tokens: two branches from the root (node 0), the first of which splits again.
#   0 - 1 - 3        parents, and so depths and paths, are:
#     |   \ 4
#     \ 2 - 5
PARENTS = [-1, 0, 0, 1, 1, 2]


def path(node: int) -> list[int]:
    return [] if node < 0 else [*path(PARENTS[node]), node]


def decode_tree(model: Llama, text: torch.Tensor, nodes: torch.Tensor) -> tuple[torch.Tensor, KVCache]:
    cache = model.cache(64)
    model(text, cache)
    mask = torch.zeros(len(nodes), len(text) + len(nodes), dtype=torch.bool)
    mask[:, : len(text)] = True
    for node in range(len(nodes)):
        mask[node, [len(text) + i for i in path(node)]] = True
    positions = torch.tensor([len(text) + len(path(node)) - 1 for node in range(len(nodes))])
    return model(nodes, cache, positions, mask), cache


def test_a_tree_gives_each_branch_the_logits_it_has_alone(model: Llama) -> None:
    text, nodes = tokens(6), tokens(6, 3)
    logits, _ = decode_tree(model, text, nodes)
    for node in range(len(nodes)):
        alone = whole(model, torch.cat((text, nodes[path(node)])))
        torch.testing.assert_close(logits[node], alone[-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("leaf", [3, 4, 5])
def test_a_gathered_path_is_a_fresh_prefill_of_it(model: Llama, leaf: int) -> None:
    text, nodes, after = tokens(6), tokens(6, 3), tokens(3, 4)
    _, cache = decode_tree(model, text, nodes)
    cache.gather([*range(len(text)), *(len(text) + node for node in path(leaf))])
    fresh = model.cache(64)
    model(torch.cat((text, nodes[path(leaf)])), fresh)
    assert cache.length == fresh.length
    for layer in range(model.config.layers):
        torch.testing.assert_close(cache.slots(layer), fresh.slots(layer), rtol=0, atol=1e-12)
    torch.testing.assert_close(model(after, cache), model(after, fresh), rtol=0, atol=1e-12)


@pytest.mark.parametrize("filled", [0, 6])
def test_a_step_in_fixed_shapes_gives_the_same(model: Llama, filled: int) -> None:
    text, new = tokens(6)[:filled], tokens(4, 3)
    cache, other = model.cache(16), model.cache(16)
    for one in (cache, other):
        model(text, one)
        model(tokens(5, 7), one)  # what a cut leaves behind must not be seen
        one.truncate(filled)
    slots = torch.arange(filled, filled + 4)
    positions, sees = slots + 3, torch.arange(16) <= slots[:, None]
    sees[3, filled + 1] = False
    logits = model.step(new, cache, positions, slots, sees)
    assert cache.length == filled
    torch.testing.assert_close(logits, model(new, other, positions, sees[:, : filled + 4]), rtol=0, atol=1e-12)
    cache.length = filled + 4
    for layer in range(model.config.layers):
        torch.testing.assert_close(cache.slots(layer), other.slots(layer), rtol=0, atol=1e-12)


def test_a_clone_goes_its_own_way(model: Llama) -> None:
    cache = model.cache(32)
    model(tokens(5), cache)
    copy = cache.clone()
    model(tokens(7, 1), copy)
    torch.testing.assert_close(
        model(tokens(3, 2), cache), whole(model, torch.cat((tokens(5), tokens(3, 2))))[5:], rtol=0, atol=1e-12
    )
    assert copy.length == 12


def test_positions_decide_not_slots(model: Llama) -> None:
    """Rotary attention knows differences of positions only: all of them moved by 40, nothing changes."""
    text = tokens(10)
    moved = model(text, model.cache(10), positions=torch.arange(40, 50))
    torch.testing.assert_close(moved, whole(model, text), rtol=0, atol=1e-10)
    stretched = model(text, model.cache(10), positions=torch.arange(0, 20, 2))
    assert (stretched - whole(model, text)).abs().max() > 1e-3


def test_bfloat16_is_close_and_gives_float32() -> None:
    torch.manual_seed(2)
    exact = Llama(PLAIN).requires_grad_(False)
    rough = Llama(PLAIN, torch.bfloat16)
    rough.load_state_dict(exact.state_dict())
    logits = whole(rough.requires_grad_(False), tokens(12))
    assert logits.dtype == torch.float32
    assert (logits - whole(exact, tokens(12))).abs().max() < 0.03 * whole(exact, tokens(12)).abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_packed_weights_compute_the_same(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PackedLinear, "SMALL", 0)
    torch.manual_seed(2)
    model = Llama(RICH, dtype).requires_grad_(False)
    if not PackedLinear.pays(model.head.weight):
        pytest.skip("no faster layout on this machine")
    expected = whole(model, tokens(12))
    assert all(isinstance(block.qkv, PackedLinear) for block in model.pack().blocks)
    error = 1e-5 if dtype == torch.float32 else 0.03
    assert (whole(model, tokens(12)) - expected).abs().max() < error * expected.abs().max()


def test_a_part_of_the_vocabulary_gives_those_columns() -> None:
    full = Llama(RICH, torch.float64).requires_grad_(False)
    part = Llama(RICH, torch.float64, head_tokens=[7, 3, 49]).requires_grad_(False)
    state = full.state_dict()
    state["head.weight"] = state["head.weight"][[7, 3, 49]]
    part.load_state_dict(state)
    torch.testing.assert_close(whole(part, tokens(5)), whole(full, tokens(5))[:, [7, 3, 49]], rtol=0, atol=1e-12)
    with pytest.raises(InvalidInput, match="tied"):
        Llama(PLAIN, head_tokens=[1])


def test_what_does_not_fit_is_refused(model: Llama) -> None:
    cache = model.cache(4)
    model(tokens(3), cache)
    with pytest.raises(InvalidInput, match="5 tokens do not fit into 4 slots"):
        model(tokens(2), cache)
    assert cache.length == 3
    with pytest.raises(InvalidInput, match="cannot cut 3 slots to 4"):
        cache.truncate(4)
    with pytest.raises(InvalidInput, match=r"within 0\.\.2"):
        cache.gather([0, 3])


def test_sizes_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(InvalidInput, match="multiple of kv_heads"):
        LlamaConfig(50, 32, 3, heads=4, kv_heads=3, head_dim=8, intermediate_size=48)
