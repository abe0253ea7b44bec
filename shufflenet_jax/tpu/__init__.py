"""Compiles programs for TPUs without a TPU, and examines the compiled programs."""
