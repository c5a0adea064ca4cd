"""The one place that makes onnxruntime sessions: which provider, how many threads, warmed up or not."""

import logging
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime as ort

from worldpilot.errors import ArtifactError, InvalidInput, UnknownName

log = logging.getLogger(__name__)

# TensorRT hands the nodes it cannot take to CUDA; everything else runs on what was asked for or is refused.
PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider",),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
}
DTYPES = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}


def available() -> list[str]:
    """The providers that the installed onnxruntime offers, by the names `session` takes."""
    installed = set(ort.get_available_providers())
    return [name for name, (first, *_) in PROVIDERS.items() if first in installed]


def session(path: Path | str, provider: str = "cpu", threads: int = 1) -> ort.InferenceSession:
    """Open a graph on `provider` with `threads` threads, none of them spinning between calls.

    One thread is the default because the nodes share a small machine with a control loop: a second thread buys little
    at these sizes, and idle threads that spin take the time from the other nodes.

    Raises:
        UnknownName: no such provider.
        InvalidInput: the installed onnxruntime lacks it, or it failed to start. There is no silent fallback to the CPU.
        ArtifactError: the file is no graph that onnxruntime can load.
    """
    if provider not in PROVIDERS:
        raise UnknownName("provider", provider, PROVIDERS)
    if provider not in available():
        raise InvalidInput(
            f"provider {provider!r} is not in this onnxruntime; available: {', '.join(available())}. "
            "Install worldpilot[gpu] instead of worldpilot[cpu], or choose one of these"
        )
    wanted = list(PROVIDERS[provider])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors; warnings are about the exporter's style
    try:
        opened = ort.InferenceSession(str(path), options, providers=wanted)
    except Exception as error:  # onnxruntime's own exceptions share no base class
        raise ArtifactError(f"{path}: onnxruntime cannot load it ({error}); export it again") from error
    opened.disable_fallback()
    used = opened.get_providers()[0]
    if used != wanted[0]:
        raise InvalidInput(f"{path}: {provider} was asked for, onnxruntime fell back to {used}; check its libraries")
    log.debug("%s runs on %s, %d thread(s)", path, used, threads)
    return opened


def warm_up(opened: ort.InferenceSession, sizes: Mapping[str, tuple[int, ...]], runs: int = 3) -> None:
    """Run on zeros of the given input shapes, so that the first real call takes no longer than the others."""
    dtypes = {node.name: DTYPES[node.type] for node in opened.get_inputs()}
    feed = {name: np.zeros(shape, dtypes[name]) for name, shape in sizes.items()}
    for _ in range(runs):
        opened.run(None, feed)
