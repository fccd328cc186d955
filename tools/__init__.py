"""The commands: `python -m tools.NAME --help`."""
