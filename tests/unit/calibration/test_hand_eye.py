"""Hand-eye: OpenCV's closed form, better than it in the end, and motions that can't tell are refused."""

from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from worldpilot.calibration import hand_eye
from worldpilot.calibration.hand_eye import Setup, check_motions, closed_form, implied, solve
from worldpilot.errors import InvalidInput, UnknownName

SETUPS: tuple[Setup, ...] = ("eye-in-hand", "eye-to-hand")
NOISE = (1e-4, float(np.deg2rad(0.02)))
SEEN_STD = np.r_[np.deg2rad([0.008, 0.008, 0.003]), 2e-5, 2e-5, 8e-5]  # of rotation vector and place


def pose(turn: Any, place: Any) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = Rotation.from_rotvec(turn).as_matrix(), place
    return matrix


def noisy(poses: np.ndarray, rng: np.random.Generator, place: Any, turn: Any) -> np.ndarray:
    moved = poses.copy()
    for one in moved:
        one[:3, 3] += rng.normal(0, place, 3)
        one[:3, :3] = Rotation.from_rotvec(rng.normal(0, turn, 3)).as_matrix() @ one[:3, :3]
    return moved


def arm(setup: Setup, seed: int, n: int = 20, noise: tuple[float, float] = NOISE) -> tuple[np.ndarray, ...]:
    """Camera, target, reported gripper (n, 4, 4), what was seen (n, 4, 4)."""
    rng = np.random.default_rng(seed)
    camera = pose(rng.normal(0, 1, 3), rng.uniform(-0.1, 0.1, 3))
    target = pose(rng.normal(0, 0.5, 3), [0.3, 0.05, 0.1])
    turns = rng.normal(0, 0.5, (n, 3))
    seen = np.array([pose(t, rng.uniform([-0.05, -0.05, 0.25], [0.05, 0.05, 0.45])) for t in turns])
    gripper = noisy(implied(camera, target, seen, setup), rng, *noise)
    return camera, target, gripper, noisy(seen, rng, SEEN_STD[3:], SEEN_STD[:3]) if noise[0] else seen


def split(poses: np.ndarray) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """As OpenCV takes them."""
    return list(poses[:, :3, :3]), list(poses[:, :3, 3])


def off(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """[mm], [degrees]."""
    turn = Rotation.from_matrix(one[:3, :3].T @ other[:3, :3]).magnitude()
    return 1e3 * float(np.linalg.norm(one[:3, 3] - other[:3, 3])), float(np.degrees(turn))


@pytest.mark.parametrize("setup", SETUPS)
def test_without_noise_the_truth_is_found(setup: Setup) -> None:
    camera, target, gripper, seen = arm(setup, 0, 8, (0.0, 0.0))
    for x, z in (closed_form(gripper, seen, setup), (lambda r: (r.camera, r.target))(solve(gripper, seen, setup))):
        np.testing.assert_allclose(x, camera, atol=1e-7)
        np.testing.assert_allclose(z, target, atol=1e-7)


@pytest.mark.parametrize("setup", SETUPS)
def test_the_closed_form_is_opencvs_park(setup: Setup) -> None:
    for seed in range(3):
        _, _, gripper, seen = arm(setup, seed)
        ours, _ = closed_form(gripper, seen, setup)
        forward = gripper if setup == "eye-in-hand" else np.linalg.inv(gripper)
        turn, place = cv2.calibrateHandEye(*split(forward), *split(seen), method=cv2.CALIB_HAND_EYE_PARK)
        np.testing.assert_allclose(ours[:3, :3], turn, atol=2e-4)
        np.testing.assert_allclose(ours[:3, 3], place.ravel(), atol=1e-4)


@pytest.mark.parametrize("setup", SETUPS)
def test_it_reaches_its_aim_and_beats_opencv(setup: Setup) -> None:
    ours, theirs, in_std = [], {"PARK": [], "DANIILIDIS": [], "SHAH": [], "LI": []}, []
    covariance = np.repeat(np.diag(SEEN_STD**2)[None], 20, 0)
    for seed in range(12):
        camera, _, gripper, seen = arm(setup, seed)
        found = solve(gripper, seen, setup, seen_covariance=covariance)
        ours.append(off(found.camera, camera))
        turn = Rotation.from_matrix(found.camera[:3, :3] @ camera[:3, :3].T).as_rotvec()
        in_std.append(np.r_[found.camera[:3, 3] - camera[:3, 3], turn] / found.std[:6])
        assert not found.dropped
        forward = gripper if setup == "eye-in-hand" else np.linalg.inv(gripper)
        for name in ("PARK", "DANIILIDIS"):
            method = getattr(cv2, f"CALIB_HAND_EYE_{name}")
            r, t = cv2.calibrateHandEye(*split(forward), *split(seen), method=method)
            theirs[name].append(off(pose(Rotation.from_matrix(r).as_rotvec(), t.ravel()), camera))
        for name in ("SHAH", "LI"):
            method = getattr(cv2, f"CALIB_ROBOT_WORLD_HAND_EYE_{name}")
            solution = cv2.calibrateRobotWorldHandEye(*split(seen), *split(np.linalg.inv(forward)), method=method)
            r, t = solution[2:]
            inverse = np.linalg.inv(pose(Rotation.from_matrix(r).as_rotvec(), t.ravel()))
            theirs[name].append(off(inverse, camera))
    place, turn = np.mean(ours, axis=0)
    assert place < 0.15
    assert turn < 0.02
    assert all(place < np.mean(others, axis=0)[0] for others in theirs.values())
    assert 0.7 < np.sqrt(np.mean(np.square(in_std))) < 1.4  # the standard deviations are right


def test_the_robots_noise_is_estimated() -> None:
    estimates = []
    for seed in range(4):
        _, _, gripper, seen = arm("eye-in-hand", seed, 30)
        estimates.append(solve(gripper, seen, "eye-in-hand"))
    place, turn = np.mean([e.robot_noise for e in estimates], axis=0)
    assert place == pytest.approx(NOISE[0], rel=0.5)
    assert turn == pytest.approx(NOISE[1], rel=0.25)


def test_covariances_of_rotation_vectors_become_those_of_steps() -> None:
    rng = np.random.default_rng(0)
    vector, place, std = np.array([0.9, -1.2, 0.7]), np.array([0.1, 0.2, 0.5]), np.array([1, 2, 3, 4, 5, 6]) * 1e-4
    drawn = [std * rng.standard_normal(6) for _ in range(4000)]
    before = pose(vector, place)
    steps = []
    for d in drawn:
        after = pose(vector + d[:3], place + d[3:])
        steps.append(np.r_[d[3:], Rotation.from_matrix(after[:3, :3] @ before[:3, :3].T).as_rotvec()])
    expected = hand_eye._place_first(np.diag(std**2)[None], before[None])[0]
    np.testing.assert_allclose(np.cov(np.array(steps).T), expected, atol=0.05 * expected.max())


@pytest.mark.parametrize("setup", SETUPS)
def test_wrong_poses_are_named_and_dropped(setup: Setup) -> None:
    camera, _, gripper, seen = arm(setup, 4)
    gripper[3, :3, 3] += [0.004, 0, 0]
    gripper[8, :3, :3] = Rotation.from_rotvec([0, 0.05, 0]).as_matrix() @ gripper[8, :3, :3]
    found = solve(gripper, seen, setup)
    assert set(found.dropped) == {3, 8}
    assert "off by" in found.dropped[3]
    assert off(found.camera, camera)[0] < 0.4
    assert len(found.used) == len(found.residuals) == 18


def test_motions_that_can_not_tell_are_refused() -> None:
    camera, target = pose([0.1, 0.2, 0.3], [0.05, 0.02, 0.04]), pose([0, 0, 0], [0.4, 0, 0])

    def reported(turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(0)
        gripper = np.array([pose(t, rng.uniform(-0.1, 0.1, 3)) for t in turns])
        return gripper, np.linalg.inv(camera) @ np.linalg.inv(gripper) @ target

    small = np.random.default_rng(1).normal(0, 0.04, (10, 3))
    with pytest.raises(InvalidInput, match=r"turned by .* at most; add poses that differ by 30 to 60 degrees"):
        solve(*reported(small), "eye-in-hand")
    one_axis = np.linspace(-0.8, 0.8, 10)[:, None] * np.array([0, 0, 1.0])
    with pytest.raises(InvalidInput, match=r"about one axis of the gripper .*across it"):
        solve(*reported(one_axis), "eye-in-hand")
    with pytest.raises(InvalidInput, match="3 poses are of use, 5 are needed"):
        check_motions(reported(one_axis)[0][:3])


def test_the_other_set_up_is_noticed() -> None:
    _, _, gripper, seen = arm("eye-to-hand", 0)
    with pytest.raises(InvalidInput, match="it is eye-to-hand"):
        solve(gripper, seen, "eye-in-hand")


def test_poses_that_do_not_belong_to_the_images_are_refused() -> None:
    _, _, gripper, seen = arm("eye-in-hand", 0, 8)
    with pytest.raises(InvalidInput, match="turns and the camera's differ by"):
        solve(np.roll(gripper, 1, axis=0), seen, "eye-in-hand")
    metres = gripper.copy()
    metres[:, :3, 3] *= 1000
    with pytest.raises(InvalidInput, match="Are lengths metres"):
        solve(metres, seen, "eye-in-hand")
    with pytest.raises(UnknownName, match="eye-to-hand"):
        solve(gripper, seen, "hand-in-eye")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"\(n, 4, 4\)"):
        solve(gripper[:, :3], seen, "eye-in-hand")
