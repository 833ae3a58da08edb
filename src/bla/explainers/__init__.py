"""One module per explanation method, each with one class (see `bla.explainer`)."""
