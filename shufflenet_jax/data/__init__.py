"""Input: datasets, pictures and batches. TensorFlow is imported here and nowhere else at module level."""

import os

from shufflenet_jax import storage  # noqa: F401  it configures how TensorFlow reads from buckets

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up messages do not concern users
