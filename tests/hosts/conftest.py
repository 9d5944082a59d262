"""What these tests need that is not everywhere."""

from __future__ import annotations

import sys
from importlib.util import find_spec

NEED_TORCH = ["test_doctor.py", "test_interpreters.py", "test_replays.py"]
"""They are about what runs models, and were written for the systems that the Pythons of tests run on."""

collect_ignore = NEED_TORCH if sys.platform == "win32" or find_spec("torch") is None else []
