"""A bucket of a running server, for tests."""

import os
import pathlib

from tests.bucket import faults, metadata
from tests.bucket.server import Server

UNSET = (
  "GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY",
)  # fmt: skip


class EmulatedBucket:
  """One bucket that exists.

  Attributes:
    url: "gs://" and its name.
    records: the requests that the server answered.
    faults: the injected faults; see `faults.Fault`.
  """

  def __init__(self, server: Server, name: str):
    if len(name) < 3:
      raise ValueError(f"bucket name {name!r}: at least three characters")
    self.server, self.name, self.url = server, name, f"gs://{name}"
    self.records, self.faults = server.records, server.faults
    server.store.add_bucket(name)

  @property
  def too_fast(self) -> list[str]:
    """Names of this bucket's objects that were written within a second of their last write."""
    return [x.removeprefix(self.name + "/") for x in self.server.too_fast if x.startswith(self.name + "/")]

  def variables(self, fixed_token: bool = True) -> dict[str, str]:
    """The environment variables by which the client libraries find the server.

    Args:
      fixed_token: give TensorFlow and TensorStore a token that they never renew. Without it they ask the metadata
        server, as on a virtual machine of Google Cloud; google-cloud-storage always does.
    """
    here = f"127.0.0.1:{self.server.port}"
    certificate = str(self.server.certificate)
    return {
      **({"GOOGLE_AUTH_TOKEN_FOR_TESTING": "token-0"} if fixed_token else {}),
      **dict.fromkeys(("https_proxy", "HTTPS_PROXY", "TENSORSTORE_GCS_HTTP_URL"), f"http://{here}"),
      **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1"),
      **dict.fromkeys(("CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"), certificate),
      **dict.fromkeys(("GCE_METADATA_HOST", "GCE_METADATA_ROOT", "GCE_METADATA_IP"), here),
      "GOOGLE_CLOUD_PROJECT": metadata.PROJECT,
      "CLOUDSDK_CONFIG": str(self.server.certificate.with_name("no_such_folder")),
    }

  def environment(self, fixed_token: bool = True, **more: str) -> dict[str, str]:
    """The environment for a command: this process's, `variables` and `more`."""
    mine = {name: value for name, value in os.environ.items() if name not in UNSET}
    if not fixed_token:
      mine.pop("GOOGLE_AUTH_TOKEN_FOR_TESTING", None)
    return {**mine, **self.variables(fixed_token), **more}

  def expire_tokens(self, refreshable: bool = True) -> list[faults.Fault]:
    """Every token issued so far is refused from now on; without `refreshable` no new one is issued."""
    made = faults.expired_tokens(self.server.metadata.issued, refreshable)
    self.faults.add(*made)
    return made

  def put(self, name: str, data: bytes) -> None:
    """Writes an object directly, without a record and without the limit of one write per second."""
    self.server.store.put(self.name, name, data, limited=False)

  def get(self, name: str) -> bytes:
    """An object's bytes; raises KeyError if there is none."""
    found = [x.data for x in self.server.store.listing(self.name, name) if x.name == name]
    if not found:
      raise KeyError(name)
    return found[0]

  def names(self, prefix: str = "") -> list[str]:
    """The names of the objects, sorted."""
    return [x.name for x in self.server.store.listing(self.name, prefix)]

  def delete(self, prefix: str) -> None:
    """Removes every object whose name begins with the prefix."""
    for name in self.names(prefix):
      self.server.store.delete(self.name, name)

  def upload_folder(self, local: str | pathlib.Path, prefix: str = "") -> None:
    """Copies a folder's files to objects named `prefix`/path."""
    for path in sorted(pathlib.Path(local).rglob("*")):
      if path.is_file():
        self.put("/".join(filter(None, [prefix.strip("/"), path.relative_to(local).as_posix()])), path.read_bytes())

  def download_folder(self, prefix: str, local: str | pathlib.Path) -> None:
    """Copies the objects below `prefix` to files of a folder."""
    start = prefix.strip("/") + "/" if prefix.strip("/") else ""
    for x in self.server.store.listing(self.name, start):
      if not x.name.endswith("/"):
        path = pathlib.Path(local) / x.name.removeprefix(start)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(x.data)
