"""`python -m experiments.few_shot --help`; see `jaxmeta/recipes/domains/few_shot.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("few-shot", prog="python -m experiments.few_shot"))
