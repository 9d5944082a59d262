"""Other Pythons, and the spandrel that each of them would import."""
