"""Print a ROS domain that nothing on this machine uses, so that a test run hears nobody else's graph."""

import random
import socket


def is_free(domain: int) -> bool:
    """Whether no participant holds the domain's first unicast discovery port (DDSI-RTPS 9.6.1.1: 7400 + 250*d + 10)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    # Domains above 101 reach into Linux's ephemeral ports; 0 is everybody's default.
    domains = random.SystemRandom().sample(range(1, 102), 101)
    print(next(domain for domain in domains if is_free(domain)))
