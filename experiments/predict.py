"""`python -m experiments.predict --help`; see `jaxmeta/commands/predict.py`."""

import sys

from jaxmeta.commands import main

if __name__ == "__main__":
    sys.exit(main("predict", prog="python -m experiments.predict"))
