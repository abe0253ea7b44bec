"""A command restarts itself with huge pages, once, and only if that makes a difference."""

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
    (None, None, "shufflenet_jax.train", False),  # not Linux
    # Set by the user, or by the first start:
    ("always [madvise] never", "glibc.malloc.tcache_count=0", "shufflenet_jax.train", False),
    ("always [madvise] never", None, "pytest.__main__", False),
    ("always [madvise] never", None, None, False),  # python FILE
  ],
)
def test_restarts_if_huge_pages_have_to_be_requested(tmp_path, monkeypatch, system, variable, module, again):
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
