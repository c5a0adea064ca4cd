"""Waiting for what another thread's executor answers."""

import threading
from typing import Any


def answered(future: Any, timeout: float, what: str) -> Any:
    """What a future comes to; fails the test if that takes longer than `timeout` [s]."""
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    assert done.wait(timeout), f"{what} has not answered"
    return future.result()
