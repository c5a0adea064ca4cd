"""The machine that the demo runs on: a ROS domain of its own, and what it may have left running."""

import random
import socket

import psutil


def free_domain() -> int:
    """A ROS domain that nothing on this machine uses."""
    # Domains above 101 reach into Linux's ephemeral ports; 0 is everybody's default.
    domains = random.SystemRandom().sample(range(1, 102), 101)
    return next(domain for domain in domains if _is_free(domain))


def processes_of(supervisor: int) -> list[str]:
    """What a supervisor with that process id started and still runs, wherever in the process tree it is now."""
    found = []
    for process in psutil.process_iter(["pid", "cmdline"]):
        try:
            if process.environ().get("WORLDPILOT_SUPERVISOR_PID") == str(supervisor):
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def _is_free(domain: int) -> bool:
    """Whether no participant holds the domain's first unicast discovery port (DDSI-RTPS 9.6.1.1: 7400 + 250*d + 10)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return False
    return True
