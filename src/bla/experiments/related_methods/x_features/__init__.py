"""XNN's x-features: how many, how orthogonal, whether they predict the logit, and what each contributes."""
