"""aether-install teaches an installed spandrel to load AetherNet models, and makes those models fast."""

__version__ = "0.2.0"
