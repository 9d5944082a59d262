"""What of these tests a system cannot run."""

from __future__ import annotations

import sys

# They fork, kill by signals, link symbolically, or impose on others the rules that hold there anyway.
POSIX = ["test_histories.py", "test_interruption.py", "test_package_managers.py", "test_windows_rules.py"]

collect_ignore = POSIX if sys.platform == "win32" else []
