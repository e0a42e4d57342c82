"""Meta-train a few-shot image classifier: `python -m experiments.few_shot --help`."""

import sys

from experiments.command_line import main
from jaxmeta.training.config import FewShot

if __name__ == "__main__":
    sys.exit(main(FewShot))
