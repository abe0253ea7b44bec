"""TPU topologies to compile for, as libtpu describes them without a TPU."""

import importlib.util
import os
import re

from shufflenet_jax.errors import UserError

# Examples that libtpu 0.0.42 accepts, as it does other sizes of these generations.
EXAMPLES = ("v4:2x2x1", "v5e:2x2", "v5e:2x4", "v5e:4x4", "v5e:16x16", "v5p:2x2x1", "v6e:2x2", "v6e:2x4", "tpu7x:2x2x1")
# High-bandwidth memory that a program can use on one JAX device, GiB: the limit in the out-of-memory error of libtpu
# 0.0.42.1. It is a little less than the memory of a chip, or of one of the two cores of v2, v3 and tpu7x.
HBM_GIB = {"v2": 7.48, "v3": 15.48, "v4": 30.75, "v5e": 15.75, "v5p": 95.74, "v6e": 31.25, "tpu7x": 94.75}


def devices(name: str) -> list:
  """The devices of a topology such as "v5e:2x4", which can be compiled for but not computed on.

  Raises:
    UserError: libtpu is not installed, or has no such topology.
  """
  generation, _, shape = name.partition(":")
  if generation not in HBM_GIB or not re.fullmatch(r"\d+(x\d+){1,2}", shape):
    raise UserError(f"--topology={name} is not one of libtpu's; for example {', '.join(EXAMPLES)}")
  if importlib.util.find_spec("libtpu") is None:
    raise UserError("compiling for TPU needs libtpu: pip install 'jax[tpu]', on Linux x86-64")
  os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # otherwise libtpu looks for a metadata server
  os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-4")  # libtpu warns without it; this machine has no TPU
  os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
  # libtpu keeps a second process from using the same TPU. Compiling uses none, so several processes may do it at once.
  os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
  from jax.experimental import topologies

  # The two cores of a v4 chip work as one device.
  options = {"chip_config_name": "megacore"} if generation == "v4" else {}
  try:
    return topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices
  except Exception as error:
    reason = (str(error).splitlines() or [""])[0]
    raise UserError(f"--topology={name} is refused by libtpu ({reason}); for example {', '.join(EXAMPLES)}") from None


def hbm_bytes(name: str) -> int:
  """Memory that a program can use on one device of a topology, bytes."""
  return int(HBM_GIB[name.partition(":")[0]] * 2**30)
