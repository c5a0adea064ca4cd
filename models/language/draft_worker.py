"""SSD: the draft in a process and on a device of its own, preparing outcomes while the target verifies.

Two kinds of messages go to the process, `Start` and `Advance`, each with a new epoch; it answers each with the
speculation that follows and then prepares that one's outcomes until the next message comes. An answer counts only if it
names the epoch that is being waited for, so a late one is harmless. A process that is late, hung or dead costs time and
never changes the text: the target goes on without it, and it is brought up to date, or replaced, meanwhile.
"""

import io
import logging
import multiprocessing
import os
import pickle
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from multiprocessing.connection import Connection
from typing import Any

import torch

from worldpilot.errors import NotReady, WorldpilotError
from worldpilot.models.language.base import Request
from worldpilot.models.language.loaders import load_model
from worldpilot.models.language.sampling import Uniforms
from worldpilot.models.language.speculation import Draft, DraftConfig, Speculation
from worldpilot.models.language.tokenizer import Tokenizer

log = logging.getLogger(__name__)

HUNG = 30.0  # [s] of silence after which a late process is replaced; a starved one is slow, and loads slowly too
RESTARTS = 3  # in a row, without an answer between them


@dataclass(frozen=True)
class DraftSource:
    """What the draft's process loads, and where it runs."""

    source: str
    config: DraftConfig
    context: int  # the longest text the target can take
    tokenizer: Tokenizer | None = None  # the target's; grammars refer to it
    dtype: str = "float32"
    device: str = "cpu"
    core: int | None = None  # the processor core it is bound to; None: any
    threads: int = 1


@dataclass(frozen=True)
class Advance:
    """These tokens are final: the outcome of verifying the speculation of the epoch `verified`, or of none (-1)."""

    epoch: int
    verified: int
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Start:
    """A text begins, or goes on behind the output so far."""

    epoch: int
    request: Request
    output: tuple[int, ...] = ()


@dataclass(frozen=True)
class Answer:
    epoch: int
    speculation: Speculation


@dataclass(frozen=True)
class Ready:
    """The model is loaded."""


@dataclass(frozen=True)
class Failed:
    """The model cannot be loaded; starting again would not help."""

    reason: str


class Channel:
    """A pipe for messages that refer to a tokenizer both ends have, so that a grammar doesn't bring it along."""

    def __init__(self, connection: Connection, tokenizer: Tokenizer | None) -> None:
        self._connection, self._tokenizer = connection, tokenizer
        self.poll, self.close = connection.poll, connection.close

    def send(self, message: Start | Advance | Answer | Ready | Failed) -> None:
        buffer = io.BytesIO()
        pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
        pickler.persistent_id = lambda obj: "tokenizer" if self._is_known(obj) else None
        pickler.dump(message)
        self._connection.send_bytes(buffer.getbuffer())

    def _is_known(self, obj: object) -> bool:
        """Whether it is the tokenizer that both ends have, or another reading of the same one."""
        known = self._tokenizer
        return known is not None and isinstance(obj, Tokenizer) and obj.fingerprint == known.fingerprint

    def receive(self) -> Any:
        unpickler = pickle.Unpickler(io.BytesIO(self._connection.recv_bytes()))
        unpickler.persistent_load = lambda _: self._tokenizer
        return unpickler.load()


class Phase(Enum):
    """Where the draft's process stands."""

    LOADING = "loading"
    SERVING = "serving"  # it has had every message, and its answers are waited for
    LATE = "late"  # it gets no messages until it is heard of again
    GONE = "gone"


class Beside:
    """A speculator in a process of its own (spawned, a daemon). It starts loading at once; `wait` is for who wants to.

    Args:
        source: what to load, and where.
        patience: a verification waits so long for a speculation [s]; then the draft is late and not waited for.
    """

    def __init__(self, source: DraftSource, patience: float = 0.5) -> None:
        self._source, self._patience = source, patience
        self._epoch = 0
        self._verified = -1  # the epoch of the speculation under verification
        self._request: Request | None = None
        self._output: list[int] = []
        self._notes: list[str] = []
        self._restarts = 0
        # A file: a tokenizer is more than a pipe holds, and starting would wait until the process has imported torch.
        self._handover = tempfile.NamedTemporaryFile(prefix="worldpilot-draft-")  # noqa: SIM115
        pickle.dump(source, self._handover, pickle.HIGHEST_PROTOCOL)
        self._handover.flush()
        self._spawn()

    @property
    def pid(self) -> int | None:
        """Of the process as it is now."""
        return self._process.pid

    def wait(self, timeout: float = 120.0) -> None:
        """Until the model is loaded.

        Raises:
            NotReady: it cannot be loaded, or not in time [s].
        """
        if self._phase is Phase.LOADING and self._channel.poll(timeout):
            self._receive()
        if self._phase is not Phase.SERVING:
            raise NotReady(f"the draft's process is not ready: {'; '.join(self.notes()) or f'{timeout} s are over'}")

    def start(self, request: Request) -> None:
        self._epoch += 1
        self._request, self._output, self._verified = request, [], -1
        if self._phase is Phase.SERVING:
            self._send(Start(self._epoch, request))

    def advance(self, tokens: list[int]) -> None:
        self._epoch += 1
        self._output += tokens
        if self._phase is Phase.SERVING:
            self._send(Advance(self._epoch, self._verified, tuple(tokens)))
        self._verified = -1

    def take(self, deadline: float | None) -> Speculation:
        """The speculation; an empty one from a process that is loading, late or gone."""
        limit = time.monotonic() + self._patience
        limit = limit if deadline is None else min(limit, deadline)
        while self._phase is not Phase.GONE:
            serving = self._phase is Phase.SERVING
            if not self._channel.poll(max(0.0, limit - time.monotonic()) if serving else 0.0):
                break
            message = self._receive()
            if isinstance(message, Answer) and message.epoch == self._epoch:
                self._verified, self._restarts = self._epoch, 0
                return message.speculation
        now = time.monotonic()
        if self._phase is Phase.SERVING:
            self._phase, self._late_since = Phase.LATE, now
            self._note(f"the draft's process has not answered for {self._patience} s; nothing is drafted until it does")
        elif self._phase is Phase.LATE and now - self._late_since > HUNG:
            self._replace(f"has been silent for {HUNG} s")
        return Speculation((), ())

    def notes(self) -> list[str]:
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        self._channel.close()  # the process ends when it sees that
        self._process.join(2.0)
        self._end_process()
        self._handover.close()

    def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        connection, other = context.Pipe()
        self._channel = Channel(connection, self._source.tokenizer)
        self._process = context.Process(target=serve, args=(other, self._handover.name), name="draft", daemon=True)
        self._process.start()
        other.close()
        self._phase = Phase.LOADING

    def _send(self, message: Start | Advance) -> None:
        try:
            self._channel.send(message)
        except OSError:
            self._replace("died")

    def _receive(self) -> Answer | Ready | Failed | None:
        """The next message; None if there was none. A process that is heard of again is brought up to date."""
        try:
            message = self._channel.receive()
        except (EOFError, OSError):
            return self._replace("died")
        if isinstance(message, Failed):
            self._end_process()
            self._note(f"the draft cannot be loaded ({message.reason}); nothing is drafted")
        elif self._phase is not Phase.SERVING:
            self._phase = Phase.SERVING
            if self._request is not None:
                self._send(Start(self._epoch, self._request, tuple(self._output)))
        return message

    def _replace(self, what: str) -> None:
        """Start another process; the text goes on without one until it has loaded."""
        self._end_process()
        self._restarts += 1
        again = self._restarts <= RESTARTS
        then = "nothing is drafted until another has loaded" if again else "nothing is drafted any more"
        self._note(f"the draft's process {what} (exit code {self._process.exitcode}); {then}")
        if again:
            self._spawn()

    def _end_process(self) -> None:
        self._process.kill()
        self._process.join()
        self._channel.close()
        self._phase = Phase.GONE

    def _note(self, text: str) -> None:
        log.warning(text)
        self._notes.append(text)


def serve(connection: Connection, handover: str) -> None:
    """The draft's process; its pickled `DraftSource` is in a file."""
    with open(handover, "rb") as file:
        source: DraftSource = pickle.load(file)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to all; the parent decides
    if source.core is not None:
        os.sched_setaffinity(0, {source.core})
    torch.set_num_threads(source.threads)
    channel = Channel(connection, source.tokenizer)
    try:
        with torch.inference_mode():
            try:
                draft = Draft(load_model(source.source, source.dtype, source.device), source.config, source.context)
                draft.measure(1)  # the first forwards take longer than others
                if source.tokenizer is not None:
                    source.tokenizer.llguidance()  # so that the first grammar doesn't have to wait for it
            except WorldpilotError as error:
                channel.send(Failed(str(error)))
                return
            channel.send(Ready())
            speculate(channel, draft)
    except (EOFError, OSError):  # the parent has closed the pipe, or is gone
        return


def speculate(channel: Channel, draft: Draft) -> None:
    """Answer messages until the pipe is closed; prepare outcomes between them, a forward at a time."""
    epoch, build = -1, float("nan")
    while True:
        message = latest(channel)
        if isinstance(message, Start):
            noise = Uniforms(message.request.seed, message.request.max_tokens)
            speculation = draft.start(message.request, noise, message.output)
        else:
            speculation = draft.advance(message.tokens, verified=message.verified == epoch)
        epoch = message.epoch
        channel.send(Answer(epoch, replace(speculation, build=build)))
        start = time.perf_counter()
        for _ in draft.build():
            if channel.poll():  # it knows better now: the rest of the tree is not wanted
                break
        build = time.perf_counter() - start


def latest(channel: Channel) -> Start | Advance:
    """The next message, with all that wait behind it in one: nobody waits for the answers to the others."""
    message = channel.receive()
    while channel.poll():
        newer = channel.receive()
        if isinstance(newer, Advance):
            tokens: Sequence[int] = newer.tokens
            if isinstance(message, Start):
                newer = Start(newer.epoch, message.request, (*message.output, *tokens))
            else:
                newer = Advance(newer.epoch, -1, (*message.tokens, *tokens))
        message = newer
    return message
