"""OpenAI's wire format for chats and completions, as far as one engine with one model can serve it.

What would change the text and is not supported is refused, never ignored.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema

from worldpilot.errors import WorldpilotError

JSON_OBJECT: Mapping[str, Any] = {"type": "object"}  # the schema of response_format json_object
LONGEST_SCHEMA = 64 * 1024  # characters


class Refusal(WorldpilotError):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.param, self.code = status, param, code

    def body(self) -> dict[str, Any]:
        """As OpenAI's clients read it."""
        kind = {429: "rate_limit_error"}.get(
            self.status, "server_error" if self.status >= 500 else "invalid_request_error"
        )
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class Wish:
    """What a client asks for, checked."""

    messages: tuple[Mapping[str, str], ...] | None  # of a chat
    prompt: str | None  # of a completion
    max_tokens: int | None  # None: the server's default
    temperature: float
    seed: int
    stop: tuple[str, ...]
    schema: Mapping[str, Any] | None  # of the text, which is JSON
    stream: bool
    usage: bool  # at the end of the stream


def _or_null(**schema: Any) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _only(*values: Any) -> dict[str, Any]:
    return {"enum": [None, *values]}


_TEXT_PART = {
    "type": "object",
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
    "required": ["type", "text"],
}
_MESSAGE = {
    "type": "object",
    "properties": {
        "role": {"enum": ["system", "developer", "user", "assistant"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": _TEXT_PART}]},
        "name": {},
    },
    "required": ["role", "content"],
    "additionalProperties": False,
}
_FORMAT = {
    "type": "object",
    "properties": {
        "type": {"enum": ["text", "json_object", "json_schema"]},
        "json_schema": {
            "type": "object",
            "properties": {"schema": {"type": "object"}, "name": {}, "strict": {}, "description": {}},
            "required": ["schema"],
            "additionalProperties": False,
        },
    },
    "required": ["type"],
    "if": {"properties": {"type": {"const": "json_schema"}}},
    "then": {"required": ["json_schema"]},
    "additionalProperties": False,
}
_LENGTH = _or_null(type="integer", minimum=1)
_COMMON = {
    "model": {"type": "string"},
    "max_tokens": _LENGTH,
    "temperature": _or_null(type="number", minimum=0, maximum=2),
    "seed": _or_null(type="integer", minimum=-(2**63), maximum=2**63 - 1),
    "stop": {
        "anyOf": [
            {"type": "null"},
            {"type": "string", "minLength": 1},
            {"type": "array", "items": {"type": "string", "minLength": 1}, "maxItems": 4},
        ]
    },
    "stream": _or_null(type="boolean"),
    "stream_options": _or_null(
        type="object", properties={"include_usage": {"type": "boolean"}}, additionalProperties=False
    ),
    # Accepted at the value that changes nothing.
    "n": _only(1),
    "top_p": _only(1),
    "presence_penalty": _only(0),
    "frequency_penalty": _only(0),
    "logit_bias": _only({}),
    # Say nothing about the text.
    "user": {},
    "metadata": {},
    "store": {},
}
_CHAT = {
    "type": "object",
    "properties": {
        **_COMMON,
        "messages": {"type": "array", "items": _MESSAGE, "minItems": 1},
        "max_completion_tokens": _LENGTH,
        "response_format": _or_null(**_FORMAT),
        "logprobs": _only(False),
        "tools": _only([]),
    },
    "required": ["model", "messages"],
    "additionalProperties": False,
}
_COMPLETION = {
    "type": "object",
    "properties": {
        **_COMMON,
        "prompt": {
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": 1}]
        },
        "best_of": _only(1),
        "echo": _only(False),
        "logprobs": _only(),
        "suffix": _only(""),
    },
    "required": ["model", "prompt"],
    "additionalProperties": False,
}
_CHECKS = {
    "chat": jsonschema.Draft202012Validator(_CHAT),
    "completion": jsonschema.Draft202012Validator(_COMPLETION),
}


def parse(kind: str, body: bytes, model: str) -> Wish:
    """A request's body.

    Args:
        kind: "chat" or "completion".
        model: the one that is served.

    Raises:
        Refusal: what is wrong with it.
    """
    data = _json(body)
    for error in _CHECKS[kind].iter_errors(data):
        path = ".".join(map(str, error.absolute_path))
        raise Refusal(400, f"{path or 'the request'}: {_short(error.message)}", param=path or None)
    if data["model"] != model:
        raise Refusal(
            404, f"there is no model {data['model']!r} here, only {model!r}", param="model", code="model_not_found"
        )
    seed, temperature, stop = data.get("seed"), data.get("temperature"), data.get("stop")
    prompt = data.get("prompt")
    return Wish(
        messages=tuple(map(_message, data["messages"])) if kind == "chat" else None,
        prompt=prompt[0] if isinstance(prompt, list) else prompt,
        max_tokens=data.get("max_completion_tokens") or data.get("max_tokens"),
        temperature=1.0 if temperature is None else float(temperature),
        seed=secrets.randbelow(2**63) if seed is None else seed % 2**63,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        schema=_schema(data.get("response_format")),
        stream=bool(data.get("stream")),
        usage=bool((data.get("stream_options") or {}).get("include_usage")),
    )


class Answer:
    """The parts of the answer to one request."""

    def __init__(self, kind: str, model: str) -> None:
        self._chat = kind == "chat"
        prefix = "chatcmpl" if self._chat else "cmpl"
        self._head = {"id": f"{prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}

    def whole(self, text: str, finish: str, usage: Mapping[str, int]) -> dict[str, Any]:
        """All in one."""
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"message": message} if self._chat else {"text": text}
        return self._object("", [self._choice(choice, finish)], usage=dict(usage))

    def piece(self, text: str, *, first: bool = False) -> dict[str, Any]:
        """A part of the text."""
        if not self._chat:
            return self._object(".chunk", [self._choice({"text": text}, None)])
        role = {"role": "assistant"} if first else {}
        return self._object(".chunk", [self._choice({"delta": {**role, "content": text}}, None)])

    def last(self, finish: str) -> dict[str, Any]:
        """Why the text ended."""
        return self._object(".chunk", [self._choice({"delta": {}} if self._chat else {"text": ""}, finish)])

    def usage(self, usage: Mapping[str, int]) -> dict[str, Any]:
        """What it cost, at the very end."""
        return self._object(".chunk", [], usage=dict(usage))

    def _choice(self, content: dict[str, Any], finish: str | None) -> dict[str, Any]:
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish}

    def _object(self, part: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        kind = f"chat.completion{part}" if self._chat else "text_completion"
        return {**self._head, "object": kind, "choices": choices, **more}


def _json(body: bytes) -> Any:
    try:
        text = body.decode("utf-8")
        data = json.loads(text)
        json.dumps(data, ensure_ascii=False).encode("utf-8")  # "\ud800" is JSON and no text
    except UnicodeDecodeError as error:
        raise Refusal(400, f"the request is not UTF-8: {error}") from error
    except UnicodeEncodeError as error:
        raise Refusal(400, f"the request contains half a surrogate pair: {error.reason}") from error
    except RecursionError as error:
        raise Refusal(400, "the request is nested too deeply") from error
    except ValueError as error:
        raise Refusal(400, f"the request is not JSON: {error}") from error
    return data


def _message(message: Mapping[str, Any]) -> Mapping[str, str]:
    content = message["content"]
    text = content if isinstance(content, str) else "".join(part["text"] for part in content)
    role = "system" if message["role"] == "developer" else message["role"]
    return {"role": role, "content": text}


def _schema(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    if response_format is None or response_format["type"] == "text":
        return None
    if response_format["type"] == "json_object":
        return JSON_OBJECT
    return response_format["json_schema"]["schema"]


def _short(message: str) -> str:
    return message if len(message) <= 300 else f"{message[:150]} … {message[-150:]}"
