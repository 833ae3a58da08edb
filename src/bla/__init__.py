"""Bounded logit attention (Baumhauer, Slijepcevic, Zeppelzauer 2021, arXiv 2105.14824).

The library: it knows nothing of DVC, of where files lie, or of params.yaml.
"""
