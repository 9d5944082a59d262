"""
Gives tests of models a spandrel that knows AetherNet, without touching the one that this environment has.

A copy of spandrel is put into a temporary folder, taught there by our own installer, and put first on the path.
"""

from __future__ import annotations

import sys

from as_in_hosts import same_numbers_in_every_run, with_the_engine  # noqa: F401 - fixtures
from environments import taught_spandrel

sys.path.insert(0, str(taught_spandrel()))
