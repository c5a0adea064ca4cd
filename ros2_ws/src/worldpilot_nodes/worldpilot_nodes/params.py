"""Every node's parameters: type (of the default), default, description and bounds, said once."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

Value = bool | int | float | str | list[str]


@dataclass(frozen=True)
class Param:
    """One parameter; `low` and `high` bound numbers. Read when the node is configured."""

    name: str
    default: Value
    description: str
    low: float | None = None
    high: float | None = None

    def descriptor(self) -> ParameterDescriptor:
        """As ROS wants it declared."""
        descriptor = ParameterDescriptor(name=self.name, description=self.description)
        if self.low is not None and self.high is not None:
            if isinstance(self.default, float):
                bounds = FloatingPointRange(from_value=float(self.low), to_value=float(self.high))
                descriptor.floating_point_range = [bounds]
            else:
                descriptor.integer_range = [IntegerRange(from_value=int(self.low), to_value=int(self.high), step=1)]
        return descriptor


COMMON = (
    Param("task", "push_t", "task whose artifact and simulation are used"),
    Param("autostart", False, "configure and activate without being asked"),
)
MODEL = (
    Param("artifact", "", "folder of the model artifact; empty: the one shipped for the task"),
    Param("public_key", "", "PEM of the key that must have signed the artifact's folder; empty: none has to"),
    Param("provider", "cpu", "ONNX Runtime execution provider: cpu or cuda"),
    Param("threads", 1, "intra-op threads of ONNX Runtime; more is slower for small graphs", 1, 64),
)
LATE = (
    Param("delay", 0.0, "from what an observation shows until the command that answers it takes effect [s]", 0.0, 2.0),
)
COMMAND = (
    Param("command_frame", "world", "frame in which commands are expressed"),
    Param(
        "command_fields",
        ["linear.x", "linear.y"],
        "fields of the TwistStamped that carry the controls of the action specification, in its order; "
        "controls that are joint angles are sent as a JointTrajectory, by their names",
    ),
)

SIM = (
    *COMMON,
    *COMMAND,
    Param("seed", 0, "seed of the first episode; each reset adds one", 0, 2**31 - 1),
    Param("system", "", "file of delays and parameters that the world is made like (see `worldpilot calibrate`)"),
    Param("randomise", False, "draw what a task can vary, such as colours, light and friction, at each reset"),
    Param("reset_after", 0.0, "how long after a fall another episode begins [s]; 0: never", 0.0, 60.0),
    Param("camera_frame", "camera", "frame of the images"),
    Param("publish_clock", False, "publish simulated time on /clock and stamp with it"),
)
WORLD_MODEL = (
    *COMMON,
    *MODEL,
    *COMMAND,
    *LATE,
    Param("max_imagine_horizon", 20, "longest horizon the imagine service accepts [model steps]", 1, 200),
    Param("publish_imagined", True, "decode what was expected of the present, if the artifact has a decoder"),
)
ACTION_PRIOR = (
    *COMMON,
    *MODEL,
    *COMMAND,
    *LATE,
    Param("count", 0, "proposals per observation; 0: as many as the artifact's manifest says", 0, 4096),
    Param("every", 1, "control steps between proposals; 0: none, the planner draws its own", 0, 1000),
    Param("seed", 0, "seed of the proposals", 0, 2**31 - 1),
)
MPC = (
    *COMMON,
    *MODEL,
    *COMMAND,
    *LATE,
    Param("reward", "", "reward specification (JSON) to start with; empty: hold until one is set"),
    Param("standing_reward", "", "reward specification (JSON) of terms that no swap removes; empty: none"),
    Param("policy", "", "folder of a policy distilled for the reward, which acts instead of a solver; empty: plan"),
    Param("solver", "ssr", "solver of the planner: ssr, cem, icem or mppi"),
    Param("solver_settings", "{}", "settings of the solver that replace its defaults (JSON object)"),
    Param(
        "propose",
        0,
        "proposals that the planner draws itself, of the observation it plans for; 0: as they come",
        0,
        4096,
    ),
    Param("replan_every", 1, "control steps for which a plan is followed", 1, 1000),
    Param("plan_ahead", False, "make the next plan while the last control of the one before is in force"),
    Param("shrink", False, "replan for what is left of the horizon until a new one begins, not for all of it"),
    Param("correction", 0.0, "weight of a plan's newest error in the mean that corrects the next; 0: none", 0.0, 0.99),
    Param(
        "escape_after",
        0.0,
        "how long nothing may move before a proposal is followed as it is [s]; 0: for ever",
        0.0,
        600.0,
    ),
    Param("escape_steps", 10, "control steps that it is then followed", 1, 1000),
    Param("seed", 0, "seed of the planner", 0, 2**31 - 1),
    Param("caution_factor", 0.5, "what is left of each control while the monitor is cautious", 0.01, 1.0),
    Param("latent_timeout", 0.35, "hold when the newest latent is older [s]", 0.05, 5.0),
    Param("alert_timeout", 0.35, "hold when the monitor has been silent for longer [s]", 0.05, 5.0),
    Param("require_monitor", True, "hold while there is no monitor"),
)
UNCERTAINTY_MONITOR = (
    *COMMON,
    *MODEL,
    Param("clear_after", 1.0, "how long scores must be good before an alert is withdrawn [s]", 0.0, 60.0),
    Param("memory", 600.0, "how far back recalibration can look [s]", 10.0, 3600.0),
)
REASONING = (
    *COMMON,
    *MODEL,
    Param("language_model", "reasoning", "the model that understands: a name, a .gguf file or a folder"),
    Param("draft_model", "draft", "the model that speculates: a name or a folder, of one tokenizer; empty: none"),
    Param("method", "auto", "how text is decoded: ar, sd, ssd, or auto: whichever is fastest here"),
    Param("dtype", "auto", "of the language model: bfloat16, float32, or auto: what the device computes in"),
    Param("language_device", "cpu", "device of the language model: cpu or cuda:N"),
    Param("draft_device", "cpu", "device of the draft: cpu or cuda:N"),
    Param("language_threads", 1, "threads of the language model on a CPU", 1, 256),
    Param("target_core", -1, "CPU core that the language model is bound to; -1: any", -1, 4095),
    Param("draft_core", -1, "CPU core that the draft is bound to; -1: any", -1, 4095),
    Param("deadline", 10.0, "for goals that name none: from acceptance to result [s]", 0.1, 600.0),
    Param(
        "sure",
        0.7,
        "a reward of a smaller probability by the model is not applied but given back; 0: all are",
        0.0,
        1.0,
    ),
    Param("service_timeout", 1.0, "how long the planner's services may take to be there, or to answer [s]", 0.05, 60.0),
    Param("latent_timeout", 1.0, "signals older than this are not known [s]", 0.05, 60.0),
)
RECORDER = (
    *COMMON,
    Param("path", "", "MCAP file to write; empty: runs/<stamp>.mcap"),
    Param("leave_out", [""], "topics that are not recorded"),
    Param("graph", "", "graph.yaml whose topics are recorded; empty: the installed one"),
)


def declare(node: Node, params: Sequence[Param]) -> None:
    """Declare `params`, with values from files and the command line where given."""
    for param in params:
        node.declare_parameter(param.name, param.default, param.descriptor())


def read(node: Node, params: Sequence[Param]) -> SimpleNamespace:
    """The values in force, as attributes."""
    return SimpleNamespace(**{param.name: node.get_parameter(param.name).value for param in params})
