"""`python -m tests.bucket` serves a bucket until Ctrl-C, for trying commands by hand."""

import argparse
import shlex
import signal
import tempfile
from pathlib import Path

from tests.bucket.bucket import UNSET, EmulatedBucket
from tests.bucket.server import Server


def main() -> None:
  parser = argparse.ArgumentParser(prog="python -m tests.bucket", description=__doc__)
  parser.add_argument("--port", type=int, default=0, help="by default a free one")
  parser.add_argument("--bucket", default="test-bucket", help="its name (default: %(default)s)")
  parser.add_argument("--folder", type=Path, help="put this folder's files into the bucket first")
  parser.add_argument("--latency", type=float, default=0, help="seconds to delay each request")
  flags = parser.parse_args()
  ends = {signal.SIGINT, signal.SIGTERM}
  signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # in every thread, for sigwait
  with tempfile.TemporaryDirectory() as folder:
    server = Server(Path(folder), flags.port).start()
    bucket = EmulatedBucket(server, flags.bucket)
    if flags.folder:
      bucket.upload_folder(flags.folder)
    server.latency = flags.latency
    print(f"# {bucket.url}: {len(bucket.names())} objects. In any terminal:")
    print(f"unset {' '.join(UNSET)}")
    for name, value in bucket.variables().items():
      print(f"export {name}={shlex.quote(value)}")
    print(f"# curl http://127.0.0.1:{server.port}/control/requests; more commands: tests/bucket/control.py", flush=True)
    signal.sigwait(ends)
    server.stop()


if __name__ == "__main__":
  main()
