"""One module per explanation method."""
