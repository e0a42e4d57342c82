"""`python -m experiments.class_streams --help`; see `jaxmeta/recipes/domains/class_streams.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("class-streams", prog="python -m experiments.class_streams"))
