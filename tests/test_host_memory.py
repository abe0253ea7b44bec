"""A command starts itself again with huge pages only where that changes something, and once."""

import os
import sys
import types

import pytest

from shufflenet_jax import host_memory


@pytest.mark.parametrize(
  ("system", "variable", "module", "again"),
  [
    ("always [madvise] never", None, "shufflenet_jax.train", True),
    ("[always] madvise never", None, "shufflenet_jax.train", False),
    ("always madvise [never]", None, "shufflenet_jax.train", False),
    (None, None, "shufflenet_jax.train", False),  # no Linux
    # The user's own, or the second start:
    ("always [madvise] never", "glibc.malloc.tcache_count=0", "shufflenet_jax.train", False),
    ("always [madvise] never", None, "pytest.__main__", False),
    ("always [madvise] never", None, None, False),  # python FILE
  ],
)
def test_starts_again_where_huge_pages_are_for_who_asks(tmp_path, monkeypatch, system, variable, module, again):
  file = tmp_path / "enabled"
  if system:
    file.write_text(system + "\n")
  monkeypatch.setattr(host_memory, "_ENABLED", file)
  spec = module and types.SimpleNamespace(name=module)
  monkeypatch.setitem(sys.modules, "__main__", types.SimpleNamespace(__spec__=spec))
  monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "-m", "shufflenet_jax.train", "--flag=a b"])
  monkeypatch.setattr(os, "environ", {} if variable is None else {"GLIBC_TUNABLES": variable})
  started = []
  monkeypatch.setattr(os, "execv", lambda *arguments: started.append((*arguments, dict(os.environ))))
  host_memory.use_huge_pages()
  command = (sys.executable, sys.orig_argv, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})
  assert started == ([command] if again else [])
