"""The `worldpilot` command. Each subcommand is a module here with `add_arguments(parser)` and `run(args)`."""
