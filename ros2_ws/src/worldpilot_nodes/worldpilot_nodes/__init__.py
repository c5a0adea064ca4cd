"""Thin lifecycle nodes: each converts messages, calls one pure method of `worldpilot`, publishes."""
