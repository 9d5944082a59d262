"""What these tests need that is not everywhere."""

from __future__ import annotations

from importlib.util import find_spec

NEED_TORCH = ["test_doctor.py", "test_interpreters.py", "test_replays.py"]
"""They are about what runs models."""

collect_ignore = NEED_TORCH if find_spec("torch") is None else []
