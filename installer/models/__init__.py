"""Model files: reading, recognising, fusing and writing them. Only this package imports torch."""
