"""`worldpilot language`, as a user types it."""

import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest

from worldpilot.cli.main import main


def arguments(babbler: Path, *more: str) -> list[str]:
    return ["language", more[0], "--model", str(babbler), "--method", "ar", "--dtype", "float32", *more[1:]]


def start(babbler: Path, *more: str) -> subprocess.Popen[str]:
    """The command in a process of its own, as from a terminal."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-u", "-m", "worldpilot.cli.main", *arguments(babbler, *more)]
    return subprocess.Popen(command, **pipes, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def test_chat_answers_line_by_line(
    babbler: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("hello\n\nhello\n/new\nhello\n" + "word " * 3000 + "\n/quit\nnever"))
    assert main(arguments(babbler, "chat", "--max-tokens", "8")) == 0
    out, err = capsys.readouterr()
    first, second, third = out.splitlines()
    assert first == third != second  # forgotten: the same again
    assert err.count("[8 tokens") == 3
    assert "exceed the model's 2048" in err


def test_an_interrupt_ends_the_answer_and_not_the_chat(babbler: Path) -> None:
    chat = start(babbler, "chat", "--max-tokens", "1900")
    assert chat.stdin is not None
    assert chat.stdout is not None
    chat.stdin.write("hello\n")
    chat.stdin.flush()
    assert chat.stdout.read(10)
    chat.send_signal(signal.SIGINT)
    chat.stdin.write("/quit\n")
    _, err = chat.communicate(timeout=20)
    assert chat.returncode == 0, err
    (tokens,) = re.findall(r"\[(\d+) tokens, \d+/s, interrupted\]", err)
    assert int(tokens) < 1900


def test_serve_serves_until_it_is_interrupted(babbler: Path) -> None:
    server = start(babbler, "serve", "--port", "0", "--name", "parrot")
    assert server.stdout is not None
    urls: list[str] = []
    while not urls:
        line = server.stdout.readline()
        assert line, server.communicate()[1]
        urls = re.findall(r"parrot at (\S+)", line)
    client = openai.OpenAI(base_url=urls[0], api_key="none", max_retries=0)
    answer = client.completions.create(model="parrot", prompt="a", max_tokens=3)
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    begin = time.monotonic()
    server.send_signal(signal.SIGINT)
    _, err = server.communicate(timeout=10)
    assert (server.returncode, err) == (0, "")
    assert not psutil.wait_procs(family, timeout=3)[1]
    assert time.monotonic() - begin < 5


def test_a_port_that_is_taken_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["language", "serve", "--port", str(port), "--model", "/not/there"]) == 2
    assert f"127.0.0.1:{port}" in capsys.readouterr().err


def test_a_model_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["language", "chat", "--model", "/not/there"]) == 2
    assert "/not/there" in capsys.readouterr().err
