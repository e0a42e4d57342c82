"""The command line: `python -m jaxmeta COMMAND`, or `jaxmeta COMMAND` where it is installed."""

from jaxmeta.extras import extra

with extra("train"):
    from jaxmeta.commands.entry import main

__all__ = ["main"]
