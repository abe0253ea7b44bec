"""A command re-executes itself with huge pages only where that changes something, and once."""

import os
import sys

import pytest

from shufflenet_jax import startup


@pytest.mark.parametrize(
  ("policy", "variable", "again"),
  [
    ("always [madvise] never", None, True),
    ("[always] madvise never", None, False),
    ("always madvise [never]", None, False),
    (None, None, False),  # not Linux
    ("always [madvise] never", "glibc.malloc.tcache_count=0", False),  # the user's own, or the second start
  ],
)
def test_re_executes_where_the_policy_is_madvise(tmp_path, monkeypatch, policy, variable, again):
  file = tmp_path / "enabled"
  if policy:
    file.write_text(policy + "\n")
  monkeypatch.setattr(startup, "HUGE_PAGES_FILE", file)
  monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "-m", "shufflenet_jax.train", "--flag=a b"])
  monkeypatch.setattr(os, "environ", {} if variable is None else {"GLIBC_TUNABLES": variable})
  started = []
  monkeypatch.setattr(os, "execv", lambda *arguments: started.append((*arguments, dict(os.environ))))
  startup.use_huge_pages()
  command = (sys.executable, sys.orig_argv, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"})
  assert started == ([command] if again else [])
