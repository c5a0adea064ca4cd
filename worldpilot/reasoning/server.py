"""An OpenAI-compatible endpoint over the language engine: chats and completions, whole or streamed.

The engine generates one text at a time; a few requests may wait for it, more are refused with 429. A client that goes
away takes its request with it. Meant for this machine: no keys, no encryption; a request must name a host that it is
served under, so that no web page can reach it through its reader's browser.
"""

import asyncio
import contextlib
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from worldpilot.errors import InvalidInput, WorldpilotError
from worldpilot.models.language.base import Cancelled, Finish, Generation, OnTokens, Request
from worldpilot.models.language.grammar import JsonGrammar
from worldpilot.reasoning.protocol import Answer, Refusal, Wish, parse
from worldpilot.reasoning.streaming import TextStream

LOOPBACK = ("localhost", "127.0.0.1", "::1")
WAITING = 4  # requests
BODY_LIMIT = 256 * 1024  # bytes
MAX_TOKENS = 512  # where a request names no number
_GONE = 499  # what other servers log for a client that went away

_LOG = logging.getLogger(__name__)
T = TypeVar("T")


class ServedEngine(Protocol):
    """What the endpoint needs of an engine."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def context(self) -> int:
        """Tokens of prompt and text together."""
        ...

    def generate(
        self, request: Request, on_tokens: OnTokens | None = None, cancelled: Cancelled | None = None
    ) -> Generation: ...


def application(
    engine: ServedEngine,
    model: str,
    *,
    hosts: Collection[str] = LOOPBACK,
    waiting: int = WAITING,
    body_limit: int = BODY_LIMIT,
) -> Starlette:
    """The ASGI application. It leaves the engine open.

    Args:
        engine: generates.
        model: the name that clients ask for.
        hosts: names that clients may know this server by; empty: any.
        waiting: requests that may wait while one is served.
        body_limit: of a request [bytes].
    """
    line = Line(engine, waiting)
    started = int(time.time())

    async def generate(http: HttpRequest) -> Response:
        kind = "chat" if http.url.path.endswith("/chat/completions") else "completion"
        wish = parse(kind, await _body(http, hosts, body_limit), model)
        request = await asyncio.to_thread(_request, wish, engine)
        job = line.enter(request, wish.stop)
        answer, usage_wanted = Answer(kind, model), wish.usage
        if wish.stream:
            first = await _unless_gone(http, job.next(), job)
            events = _events(first, job, answer, usage_wanted)
            return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
        text, end = await _unless_gone(http, _whole(job), job)
        return JSONResponse(answer.whole(text, end.finish, end.usage))

    async def models(_: HttpRequest) -> Response:
        entry = {"id": model, "object": "model", "created": started, "owned_by": "worldpilot"}
        return JSONResponse({"object": "list", "data": [entry]})

    async def health(_: HttpRequest) -> Response:
        return JSONResponse({"status": "ok", "model": model, "requests": line.length})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(line.close)

    routes = [
        Route("/v1/chat/completions", generate, methods=["POST"]),
        Route("/v1/completions", generate, methods=["POST"]),
        Route("/v1/models", models),
        Route("/healthz", health),
    ]
    return Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={
            Refusal: _refuse,
            InvalidInput: lambda http, error: _refuse(http, Refusal(400, str(error))),
            _Gone: lambda *_: Response(status_code=_GONE),
            404: lambda *_: _refusal(Refusal(404, "there is no such path; see /v1/models")),
            405: lambda *_: _refusal(Refusal(405, "this path is not served by that method")),
            Exception: lambda *_: _refusal(Refusal(500, "the server failed; its log says how")),
        },
    )


class End:
    """How a text ended."""

    def __init__(self, request: Request, generation: Generation, stopped: bool) -> None:
        ended = stopped or generation.finish is Finish.END
        self.finish = "stop" if ended else "length"
        prompt, text = len(request.prompt), len(generation.tokens)
        self.usage = {"prompt_tokens": prompt, "completion_tokens": text, "total_tokens": prompt + text}


class Line:
    """Jobs one after another, in a thread beside the event loop's.

    Args:
        engine: generates.
        waiting: jobs that may wait while one is served.
    """

    def __init__(self, engine: ServedEngine, waiting: int) -> None:
        self._engine, self._waiting = engine, waiting
        self._jobs: set[Job] = set()
        self._thread = ThreadPoolExecutor(1, "language")

    @property
    def length(self) -> int:
        """Jobs under way and waiting."""
        return len(self._jobs)

    def enter(self, request: Request, stop: Collection[str]) -> "Job":
        """A job at the end of the line.

        Raises:
            Refusal: the line is full.
        """
        if len(self._jobs) > self._waiting:
            raise Refusal(429, f"{len(self._jobs)} requests are served or wait already; try again later")
        job = Job(self._engine, request, stop, self._jobs.discard)
        self._jobs.add(job)
        asyncio.get_running_loop().run_in_executor(self._thread, job.run)
        return job

    def close(self) -> None:
        """Call off all jobs and wait until they have ended."""
        for job in tuple(self._jobs):
            job.cancel()
        self._thread.shutdown()


class Job:
    """One request under way: generated in the line's thread, heard in the event loop's.

    Args:
        engine: generates.
        request: what.
        stop: texts that end it.
        leave: called with the job, in the event loop's thread, when it has ended and before that is heard.
    """

    def __init__(
        self, engine: ServedEngine, request: Request, stop: Collection[str], leave: Callable[["Job"], None]
    ) -> None:
        self._engine, self._request, self._leave = engine, request, leave
        self._text = TextStream(engine.tokenizer, tuple(stop))
        self._over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._heard: asyncio.Queue[str | End | Exception] = asyncio.Queue()

    def run(self) -> None:
        """Generate; to be called in a thread."""
        try:
            generation = self._engine.generate(self._request, self._hear, self._over.is_set)
            if generation.finish is Finish.CANCELLED and not self._text.stopped:
                raise Refusal(503, "the request was called off: the server is shutting down")
            self._tell(self._text.close())
            last: End | Exception = End(self._request, generation, self._text.stopped)
        except Exception as error:  # whatever it is, the one who waits must hear of it
            last = error
        self._loop.call_soon_threadsafe(self._leave, self)
        self._tell(last)

    async def next(self) -> str | End:
        """The next piece of the text, or its end.

        Raises:
            WorldpilotError: the engine refused.
        """
        heard = await self._heard.get()
        if isinstance(heard, Exception):
            raise heard
        return heard

    def cancel(self) -> None:
        """Stop at the next round."""
        self._over.set()

    def _hear(self, tokens: Any) -> None:
        self._tell(self._text.push(tokens))
        if self._text.stopped:
            self._over.set()

    def _tell(self, item: str | End | Exception) -> None:
        if item != "":
            self._loop.call_soon_threadsafe(self._heard.put_nowait, item)


class _Gone(Exception):
    """The client went away."""


async def _body(http: HttpRequest, hosts: Collection[str], limit: int) -> bytes:
    """What was sent.

    Raises:
        Refusal: not for this host, not JSON, or too long.
    """
    if hosts and http.url.hostname not in hosts:
        raise Refusal(403, f"this server is {', '.join(sorted(hosts))}, not {http.url.hostname}")
    if http.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "the request must be JSON and say so: Content-Type: application/json")
    body = bytearray()
    async for chunk in http.stream():
        body += chunk
        if len(body) > limit:
            raise Refusal(413, f"a request has at most {limit} bytes")
    return bytes(body)


def _request(wish: Wish, engine: ServedEngine) -> Request:
    """What the engine is asked for.

    Raises:
        Refusal, InvalidInput: the prompt is empty or too long, the schema can't be compiled.
    """
    tokenizer = engine.tokenizer
    prompt = tokenizer.encode(wish.prompt) if wish.prompt is not None else tokenizer.chat(wish.messages)
    room = engine.context - len(prompt)
    if not prompt or room < (wish.max_tokens or 1):
        raise Refusal(
            400,
            f"prompt and text together have between 2 and {engine.context} tokens; the prompt has {len(prompt)}, "
            f"the text may have {wish.max_tokens or 1}",
            param="messages" if wish.prompt is None else "prompt",
            code="context_length_exceeded" if prompt else None,
        )
    return Request(
        prompt=tuple(prompt),
        max_tokens=wish.max_tokens or min(MAX_TOKENS, room),
        temperature=wish.temperature,
        seed=wish.seed,
        end=tokenizer.end,
        grammar=JsonGrammar(wish.schema, tokenizer) if wish.schema is not None else None,
    )


async def _whole(job: Job) -> tuple[str, End]:
    pieces: list[str] = []
    while isinstance(heard := await job.next(), str):
        pieces.append(heard)
    return "".join(pieces), heard


async def _events(first: str | End, job: Job, answer: Answer, usage: bool) -> AsyncIterator[str]:
    """Server-sent events: the pieces, the end, what it cost if that was asked for, and a mark that no more follows."""
    try:
        yield _event(answer.piece("", first=True))
        heard = first
        while isinstance(heard, str):
            yield _event(answer.piece(heard))
            heard = await job.next()
        yield _event(answer.last(heard.finish))
        if usage:
            yield _event(answer.usage(heard.usage))
    except WorldpilotError as error:  # the status line is sent: only the stream can say it
        yield _event((error if isinstance(error, Refusal) else Refusal(500, str(error))).body())
    finally:
        job.cancel()
    yield "data: [DONE]\n\n"


def _event(data: Any) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n"


async def _unless_gone(http: HttpRequest, awaited: Awaitable[T], job: Job) -> T:
    """What `awaited` gives; the job is called off if the client goes away before.

    Raises:
        _Gone: it has.
    """
    answer, gone = asyncio.ensure_future(awaited), asyncio.ensure_future(_hang_up(http))
    try:
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise _Gone
        return answer.result()
    except BaseException:
        job.cancel()
        raise
    finally:
        answer.cancel()
        gone.cancel()


async def _hang_up(http: HttpRequest) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


def _refuse(_: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, Refusal)  # what it is registered for
    return _refusal(error)


def _refusal(error: Refusal) -> Response:
    return JSONResponse(error.body(), error.status, headers={"Retry-After": "1"} if error.status == 429 else None)
