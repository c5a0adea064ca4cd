"""The search keeps what it tried, goes on from there, and refuses what is not its own."""

import json
import math
from pathlib import Path

import pytest

from worldpilot.errors import InvalidInput
from worldpilot.models.recipe.search import Point, search

START = {"weight_decay": 0.1, "steps": 100.0}


class Counted:
    """A bowl around weight decay 0.4 and 1600 steps that counts its calls and may give up."""

    def __init__(self, patience: float = math.inf) -> None:
        self.calls, self.patience = 0, patience

    def __call__(self, point: Point) -> float:
        if self.calls >= self.patience:
            raise KeyboardInterrupt
        self.calls += 1
        return math.log2(point["weight_decay"] / 0.4) ** 2 + math.log2(point["steps"] / 1600) ** 2


def test_the_minimum_is_found() -> None:
    found = search(Counted(), START)
    assert found.point == {"weight_decay": pytest.approx(0.4), "steps": 1600}
    assert found.loss == pytest.approx(0)


def test_a_search_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    straight = Counted()
    whole = search(straight, START)
    with pytest.raises(KeyboardInterrupt):
        search(Counted(patience=5), START, journal=tmp_path / "search.jsonl")
    rest = Counted()
    assert search(rest, START, journal=tmp_path / "search.jsonl") == whole
    assert rest.calls == straight.calls - 5
    again = Counted(patience=0)
    assert search(again, START, journal=tmp_path / "search.jsonl") == whole


def test_a_journal_about_something_else_is_refused(tmp_path: Path) -> None:
    search(Counted(), START, journal=tmp_path / "search.jsonl", about="walker")
    with pytest.raises(InvalidInput, match=r"walker.*hopper"):
        search(Counted(), START, journal=tmp_path / "search.jsonl", about="hopper")
    with pytest.raises(InvalidInput, match="remove it"):
        search(Counted(), {"steps": 100.0}, journal=tmp_path / "search.jsonl", about="walker")
    (tmp_path / "broken.jsonl").write_text("{")
    with pytest.raises(InvalidInput, match="no journal"):
        search(Counted(), START, journal=tmp_path / "broken.jsonl")


def test_what_diverges_is_the_worst_and_kept_as_such(tmp_path: Path) -> None:
    def loss(point: Point) -> float:
        return math.nan if point["rate"] > 3 else -point["rate"]

    found = search(loss, {"rate": 1.0}, journal=tmp_path / "search.jsonl")
    assert found.point == {"rate": 2.0}
    trials = [json.loads(line) for line in (tmp_path / "search.jsonl").read_text().splitlines()[1:]]
    assert {"point": {"rate": 4.0}, "loss": None} in trials
    assert search(lambda point: 0.0, {"rate": 1.0}, journal=tmp_path / "search.jsonl") == found
    with pytest.raises(InvalidInput, match="no finite loss"):
        search(lambda point: math.inf, {"rate": 1.0})


def test_a_gain_that_is_too_small_is_none() -> None:
    """Each doubling gains half of what the one before did: 10 %, 5.6 %, 2.9 %, 1.5 %."""
    losses = {1: 1.0, 2: 0.9, 4: 0.85, 8: 0.825, 16: 0.8125}

    def loss(point: Point) -> float:
        return losses.get(int(point["steps"]), 2.0)

    assert search(loss, {"steps": 1.0}, gain=0.02).point == {"steps": 8.0}
    assert search(loss, {"steps": 1.0}).point == {"steps": 16.0}


@pytest.mark.parametrize("start", [0.0, -1.0, math.inf, 5.0])
def test_a_start_must_be_positive_and_within_its_limits(start: float) -> None:
    with pytest.raises(InvalidInput, match="starts at"):
        search(Counted(), {"weight_decay": start, "steps": 100.0}, limits={"weight_decay": (0.01, 4.0)})
