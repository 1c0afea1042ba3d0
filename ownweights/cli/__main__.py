"""`python -m ownweights.cli` is `own`."""

import sys

from ownweights.cli.main import main

sys.exit(main())
