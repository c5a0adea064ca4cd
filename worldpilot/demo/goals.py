"""Where the demo wants the block, and the rewards that say so."""

from typing import Any

import numpy as np

GOAL = np.array([0.0, 0.0, -np.pi / 4])  # the task's: x [m], y [m], yaw [rad]
BLOCK_COLOUR = (0.35, 0.45, 0.65)  # the task's, RGB in [0, 1]
ELSEWHERE = np.array([0.05, 0.03, -np.pi / 4 + 0.4])
TURNED = GOAL + [0, 0, np.pi / 2]

SWAP_POSE: dict[str, Any] = {
    "name": "another goal pose",
    "terms": [
        {
            "plugin": "goal_pose",
            "params": {"x": ELSEWHERE[0], "y": ELSEWHERE[1], "yaw": round(ELSEWHERE[2], 4), "approach": 0.1},
        }
    ],
}
SWAP_EXPRESSION: dict[str, Any] = {
    "name": "push with the block turned by 90°",
    "terms": [
        {
            "plugin": "expression",
            "params": {
                "expression": "-block_x**2 - block_y**2 - 0.01 * angle_diff(block_yaw, pi/4)**2"
                " - 0.05 * max(hypot(pusher_x - block_x, pusher_y - block_y) - 0.06, 0)**2",
                "when": "last",
                "discount": 0.9,
            },
        }
    ],
}
SWAP_REFUSED: dict[str, Any] = {
    "name": "a signal that the model does not have",
    "terms": [{"plugin": "expression", "params": {"expression": "-block_z**2"}}],
}
