"""Input: TensorFlow lives here and nowhere else."""

import os

from shufflenet_jax import storage  # noqa: F401  which sets how TensorFlow reads from buckets

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes are no news to our users
