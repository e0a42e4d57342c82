"""Meta-train a regressor of curves or images: `python -m experiments.regression --help`."""

import sys

from experiments.command_line import main
from jaxmeta.training.config import Regression

if __name__ == "__main__":
    sys.exit(main(Regression))
