"""Trains the networks of the paper's tables and compares the errors: `python -m shufflenet_jax.reproduce`."""
