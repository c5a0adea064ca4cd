"""The frames of an image topic for a plain Python program, one after the other."""

import contextlib
import os
import queue
from collections.abc import Iterator

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from worldpilot.errors import InvalidInput, NotReady
from worldpilot.graph import load
from worldpilot.types import ImageArray
from worldpilot_nodes import qos
from worldpilot_nodes.convert import image

_PERIOD = 0.1  # [s], between looks at whether it is over


def frames(topic: str, *, timeout: float = 10.0) -> Iterator[ImageArray]:
    """Images (H, W, 3), always the newest; those that come while the caller works on one are skipped.

    Raises:
        NotReady: none comes within `timeout` [s].
        InvalidInput: an encoding other than rgb8, bgr8, mono8.
    """
    newest: queue.Queue[Image] = queue.Queue(1)

    def take(message: Image) -> None:
        with contextlib.suppress(queue.Empty):
            newest.get_nowait()
        newest.put(message)

    for name, value in load().environment.items():  # read once by the middleware, when it starts
        os.environ.setdefault(name, value)
    context = Context()
    rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("frames", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.create_subscription(Image, topic, take, qos.SUBSCRIPTIONS["sensor"])
    try:
        while True:
            waited = 0.0
            while newest.empty():
                if waited >= timeout:
                    raise NotReady(f"nothing came on {topic} in {timeout:.0f} s; is it published, on this domain?")
                executor.spin_once(timeout_sec=_PERIOD)
                waited += _PERIOD
            yield _rgb(newest.get_nowait())
            executor.spin_once(timeout_sec=0.0)
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        context.try_shutdown()


def _rgb(message: Image) -> ImageArray:
    if message.encoding == "mono8":
        h, w, step = message.height, message.width, message.step
        if step < w or len(message.data) != step * h or not h:
            raise InvalidInput(f"image: {h} rows of {step} bytes must hold {w} mono8 pixels each")
        grey = np.frombuffer(message.data, np.uint8).reshape(h, step)[:, :w]
        return np.repeat(grey[..., None], 3, axis=2)
    if message.encoding == "bgr8":
        message.encoding = "rgb8"
        return np.ascontiguousarray(image(message)[..., ::-1])
    return image(message)
