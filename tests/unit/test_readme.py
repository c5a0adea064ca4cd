"""What the README promises to run does run."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from worldpilot.planners.rewards import registry
from worldpilot.types import ActionSpec, Rollouts

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/decisions/README.md")


def test_it_has_the_test_command_that_ci_runs() -> None:
    assert re.search(r"^<!-- ci:test -->\n```\w*\n(.+\n)+```$", README, re.MULTILINE)


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/decisions/README.md"]
)
def test_links_lead_somewhere(document: str) -> None:
    path = ROOT / document
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)[^)]*\)", path.read_text())
    assert [link for link in links if not (path.parent / link).exists()] == []


def test_the_plugin_scores_rollouts() -> None:
    (source,) = re.findall(r"```python\n# stay_left\.py\n(.*?)```", README, re.DOTALL)
    namespace: dict[str, Any] = {"__name__": "stay_left"}
    exec(compile(source, "stay_left.py", "exec"), namespace)
    action = ActionSpec(("x",), ("m/s",), (-1.0,), (1.0,), (1.0,), 0.1, 1)
    block_x = np.array([[-0.2, -0.1], [0.1, 0.3]], np.float32)
    rollouts = Rollouts(
        latents=np.zeros((2, 2, 4), np.float32),
        actions=np.zeros((2, 2, 1), np.float32),
        signals={"block_x": block_x},
        disagreement=np.zeros((2, 2), np.float32),
        action_spec=action,
        previous_control=np.zeros(1, np.float32),
    )
    plugin = namespace["StayLeft"].from_params({"x": 0.05})
    np.testing.assert_allclose(plugin.score(rollouts), [[0, 0], [-0.05, -0.25]], atol=1e-6)
    assert plugin.needs() == ("block_x",)


def test_the_specification_is_a_reward() -> None:
    (text,) = re.findall(r"spec_json: '(.*?)'}\"", README, re.DOTALL)
    spec = registry.parse_spec(text.replace('\\"', '"'))
    assert [term.plugin for term in spec.terms] == ["tolerance", "smoothness"]
    assert json.loads(json.dumps(registry.to_dict(spec)))["name"] == spec.name
