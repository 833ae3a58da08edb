"""What the method does on a dataset, in a few questions with a test each."""
