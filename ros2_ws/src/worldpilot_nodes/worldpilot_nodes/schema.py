"""Message definitions as text, with all they depend on: what makes a recording readable without this workspace."""

import re
from functools import cache
from pathlib import Path

from ament_index_python.packages import get_package_share_directory

_FIELD = re.compile(r"^\s*([A-Za-z][\w/]*)(?:<=\d+)?(?:\[.*?\])?\s+[a-z]\w*", re.MULTILINE)
_BUILTIN = {"bool", "byte", "char", "string", "wstring", "float32", "float64"} | {
    f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)
}
_SEPARATOR = "=" * 80


def message_definition(name: str) -> str:
    """The `ros2msg` schema of "package/msg/Name": its text, then each type it uses, once, under a heading."""
    package, _, message = name.split("/")
    texts: dict[str, str] = {}
    _collect(package, message, texts)
    (_, main), *used = texts.items()
    return "\n".join([main, *(f"{_SEPARATOR}\nMSG: {key}\n{text}" for key, text in used)])


def _collect(package: str, message: str, texts: dict[str, str]) -> None:
    key = f"{package}/{message}"
    if key in texts:
        return
    texts[key] = _text(package, message)
    for field in _FIELD.findall(texts[key]):
        if field in _BUILTIN:
            continue
        *owner, used = field.split("/")
        _collect(owner[0] if owner else package, used, texts)


@cache
def _text(package: str, message: str) -> str:
    return (Path(get_package_share_directory(package)) / "msg" / f"{message}.msg").read_text()
