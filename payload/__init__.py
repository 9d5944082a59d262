"""What aether-install ships: each folder in here lands in ``spandrel/architectures`` as it is."""
