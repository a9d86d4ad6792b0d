"""`python -m hookline`: the command line, where the script `hookline` is not on the path, e.g. under torchrun."""

import sys

from hookline.cli import main

if __name__ == "__main__":
    sys.exit(main())
