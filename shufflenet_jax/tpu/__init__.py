"""Compiling for TPUs without one, and reading what the compiler made."""
