"""`python -m fastattn.cli` is `fastattn`."""

import sys

from fastattn.cli import main

sys.exit(main())
