"""The qualities of service that `launch/graph.yaml` names.

Publishers *offer* deadline, lifespan and liveliness; our subscribers don't *request* them, so that any camera driver or
motor driver can be connected. Staleness is judged by the age of what arrived (see `base.Age`), which also notices a
process that hangs while its middleware threads still live.
"""

from rclpy.duration import Duration
from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy

PERIOD = 0.1  # [s], the control period that deadlines and lifespans are multiples of
LIFESPAN = 2 * PERIOD  # [s], a command or sample older than this is worth nothing
LEASE = 0.5  # [s], a heartbeat that is later than this has stopped


def _profile(reliability: ReliabilityPolicy, durability: DurabilityPolicy, **offered: object) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=1, reliability=reliability, durability=durability, **offered
    )


_RELIABLE, _BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
_VOLATILE, _LATCHED = DurabilityPolicy.VOLATILE, DurabilityPolicy.TRANSIENT_LOCAL
_TIMED = {"deadline": Duration(seconds=LIFESPAN), "lifespan": Duration(seconds=LIFESPAN)}
_ALIVE = {"liveliness": LivelinessPolicy.AUTOMATIC, "liveliness_lease_duration": Duration(seconds=LEASE)}

PUBLISHERS = {
    "sensor": _profile(_BEST_EFFORT, _VOLATILE, **_TIMED),
    "command": _profile(_RELIABLE, _VOLATILE, **_TIMED),
    "status": _profile(_RELIABLE, _LATCHED),
    "heartbeat": _profile(_RELIABLE, _LATCHED, **_ALIVE),
    "diagnostics": _profile(_RELIABLE, _VOLATILE),
}
SUBSCRIPTIONS = {
    "sensor": _profile(_BEST_EFFORT, _VOLATILE),
    "command": _profile(_RELIABLE, _VOLATILE),
    "status": _profile(_RELIABLE, _LATCHED),
    "heartbeat": _profile(_RELIABLE, _LATCHED),
    "diagnostics": _profile(_RELIABLE, _VOLATILE),
}
