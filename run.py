"""The only entry point of a checkout: `python run.py COMMAND …`; installed it is `da COMMAND …`."""

from da.cli._main import commands, entry, main

__all__ = ["commands", "entry", "main"]

if __name__ == "__main__":
    entry()
