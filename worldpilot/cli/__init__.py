"""The `worldpilot` command. Each subcommand is a module here with `HELP`, `add_arguments(parser)` and `run(args)`."""
