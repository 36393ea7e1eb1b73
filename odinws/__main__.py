"""`python -m odinws`: see `odinws.cli`."""

import sys

from odinws.cli import main

if __name__ == "__main__":
    sys.exit(main())
