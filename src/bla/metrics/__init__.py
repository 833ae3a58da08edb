"""One module per family of metrics of explanations."""
