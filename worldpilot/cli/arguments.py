"""Types of arguments that several subcommands take."""

import argparse
import json
from typing import Any


def json_object(text: str) -> dict[str, Any]:
    """An argument that is a JSON object, such as {"samples": 32}.

    Raises:
        ArgumentTypeError: it is not.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f'must be a JSON object like {{"samples": 32}}, got {text[:80]}')
    return value
