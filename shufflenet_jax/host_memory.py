"""Huge pages for a process that computes on its CPU."""

import os
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
_ENABLED = "/sys/kernel/mm/transparent_hugepage/enabled"


def use_huge_pages() -> None:
  """Starts this command again, with glibc told to ask for huge pages, where Linux gives them only to who asks.

  XLA:CPU allocates a step's temporaries anew in each step, hundreds of megabytes, which the system clears page by page
  as they are touched: with small pages a quarter of the processor time of training (benchmarks/RESULTS.md). glibc reads
  the wish when a process starts, so it is set by an `exec`: the same process, a twentieth of a second later. Does
  nothing but in this project's `python -m ...`, elsewhere than on such a Linux, or where the variable is set already.
  """
  spec = getattr(sys.modules["__main__"], "__spec__", None)
  if TUNABLES in os.environ or spec is None or spec.name.partition(".")[0] not in ("shufflenet_jax", "benchmarks"):
    return
  try:
    with open(_ENABLED) as file:
      if "[madvise]" not in file.read():
        return
  except OSError:
    return
  os.environ[TUNABLES] = HUGE_PAGES
  os.execv(sys.executable, sys.orig_argv)
