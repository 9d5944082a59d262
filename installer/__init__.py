"""aether-install teaches an installed spandrel to load AetherNet models, and fuses those models."""

__version__ = "0.2.0"
