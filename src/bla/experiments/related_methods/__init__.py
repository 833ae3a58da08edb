"""What the related methods (docs/related_methods.md) show besides their maps."""
