"""The errors worldpilot raises at its boundaries. Each message says what was wrong, what was expected, what to do."""

from collections.abc import Iterable


class WorldpilotError(Exception):
    """Base class: catch this to catch everything that worldpilot refuses on purpose."""


class InvalidInput(WorldpilotError):
    """A value from outside (service, file, configuration, caller) does not meet its contract."""


class UnknownName(WorldpilotError):
    """A name that is not registered; the message lists the names that are."""

    def __init__(self, kind: str, name: str, valid: Iterable[str]) -> None:
        self.kind, self.name, self.valid = kind, name, sorted(valid)
        super().__init__(f"unknown {kind} {name!r}; valid names: {', '.join(self.valid) or '(none)'}")

    def __reduce__(self) -> tuple[type, tuple[str, str, list[str]]]:  # it crosses process pools
        return type(self), (self.kind, self.name, self.valid)


class RewardError(InvalidInput):
    """A reward specification that cannot be built, or whose scores are not usable."""


class ArtifactError(WorldpilotError):
    """A model artifact that must not be used: missing file, wrong hash, wrong shape, wrong specification."""


class NotReady(WorldpilotError):
    """Something was asked for before what it depends on has arrived."""
