"""What files are that people take for models and no host loads; needs no torch."""
