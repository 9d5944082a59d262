"""Applications of Windows, whose tests run there alone: under Wine, or in Windows itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if sys.platform != "win32":
    collect_ignore_glob = ["test_*.py"]
else:
    from layouts import Application, portable

    @pytest.fixture
    def comfyui(tmp_path: Path) -> Application:
        return portable(tmp_path)
