"""scikit-build-core builds the package. On Windows, which has no build yet, pip shows one line instead."""

import os
import sys

if sys.platform == "win32" and not os.environ.get("FASTATTN_TRY_WINDOWS"):
    sys.exit("fastattn does not run on Windows yet: use Linux (also in WSL) or macOS on Apple silicon.")

from scikit_build_core.build import *  # noqa: F403
