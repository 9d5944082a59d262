"""
Gives tests of models a spandrel that knows AetherNet, without touching the one that this environment has.

A copy of spandrel is put into a temporary folder, taught there by our own installer, and put first on the path.
"""

from __future__ import annotations

import sys

from environments import taught_spandrel
from same_numbers import same_numbers_in_every_run  # noqa: F401 - a fixture

sys.path.insert(0, str(taught_spandrel()))
