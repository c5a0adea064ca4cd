"""Sessions: the provider asked for or a refusal, never another one in silence."""

from pathlib import Path

import numpy as np
import pytest

from worldpilot.errors import ArtifactError, InvalidInput, UnknownName
from worldpilot.models import runtime


def test_a_session_runs_on_one_quiet_thread(tiny_artifact: Path) -> None:
    session = runtime.session(tiny_artifact / "readout.onnx")
    options = session.get_session_options()
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_an_unknown_provider_is_refused_with_the_known_ones(tiny_artifact: Path) -> None:
    with pytest.raises(UnknownName, match="valid names: cpu, cuda, tensorrt"):
        runtime.session(tiny_artifact / "readout.onnx", "npu")


@pytest.mark.skipif("tensorrt" in runtime.available(), reason="this onnxruntime has every provider")
def test_a_provider_that_is_not_installed_is_refused_with_those_that_are(tiny_artifact: Path) -> None:
    with pytest.raises(InvalidInput, match=r"'tensorrt' is not in this onnxruntime; available: cpu"):
        runtime.session(tiny_artifact / "readout.onnx", "tensorrt")


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a graph")
    with pytest.raises(ArtifactError, match=r"broken\.onnx: onnxruntime cannot load it"):
        runtime.session(tmp_path / "broken.onnx")


def test_warm_up_feeds_every_input_in_its_own_type(tiny_artifact: Path) -> None:
    runtime.warm_up(runtime.session(tiny_artifact / "encoder.onnx"), {"observation": (1, 64, 64, 3)}, runs=1)
    with pytest.raises(Exception, match="Got invalid dimensions"):
        runtime.warm_up(runtime.session(tiny_artifact / "encoder.onnx"), {"observation": (1, 32, 64, 3)}, runs=1)


def test_same_input_same_output(tiny_artifact: Path) -> None:
    latents = np.random.default_rng(0).normal(size=(7, 16)).astype(np.float32)
    first, second = (runtime.session(tiny_artifact / "readout.onnx").run(None, {"latents": latents}) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
