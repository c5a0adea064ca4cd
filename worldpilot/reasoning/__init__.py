"""From an instruction in plain words to a checked reward specification, and from an alert to an explanation."""
