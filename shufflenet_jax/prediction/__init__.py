"""Applies a checkpoint's network to pictures, for `predict`."""
