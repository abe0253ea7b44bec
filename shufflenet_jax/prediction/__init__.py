"""What a checkpoint answers about single pictures, for `predict`."""
