"""Applies a network to pictures, for `predict`."""
