"""ShuffleNet V1 (arXiv 1707.01083) for JAX and Flax."""

__version__ = "0.1.0"

import os
import signal
import sys

# `python -m shufflenet_jax.COMMAND` imports this file first, while sys.argv[0] is still "-m". Without this, Ctrl-C in
# the tenths of a second before `cli.Command` handles it would print a traceback.
if sys.argv[:1] == ["-m"]:
  signal.signal(signal.SIGINT, lambda *_: os._exit(130))
