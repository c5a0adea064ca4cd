import os
import subprocess
import sys

from worldpilot.demo.host import free_domain, processes_of


def test_a_process_is_found_by_its_supervisor_and_gone_when_it_has_ended() -> None:
    supervisor = 2**22 + os.getpid()  # nobody's: process ids end at 2^22
    environment = {**os.environ, "WORLDPILOT_SUPERVISOR_PID": str(supervisor)}
    with subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        (found,) = processes_of(supervisor)
        assert found.startswith(f"{process.pid} ")
        process.communicate("\n")
    assert processes_of(supervisor) == []


def test_domains_are_in_the_range_that_is_safe_on_linux() -> None:
    assert 1 <= free_domain() <= 101
