"""A self-signed certificate for the names of Google's hosts, made by the openssl command."""

import pathlib
import ssl
import subprocess

HOSTS = ("storage.googleapis.com", "www.googleapis.com", "oauth2.googleapis.com")


def make(folder: pathlib.Path) -> pathlib.Path:
  """Writes `certificate.pem`, which clients trust, and `key.pem`; returns the certificate's path."""
  certificate, key = folder / "certificate.pem", folder / "key.pem"
  if not certificate.exists():
    names = ",".join(f"DNS:{host}" for host in HOSTS)
    subprocess.run(
      ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
       "-subj", f"/CN={HOSTS[0]}", "-addext", f"subjectAltName={names}", "-keyout", key, "-out", certificate],
      check=True, capture_output=True,
    )  # fmt: skip
  return certificate


def context(certificate: pathlib.Path) -> ssl.SSLContext:
  """For the server's side of a connection."""
  made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
  made.load_cert_chain(certificate, certificate.with_name("key.pem"))
  made.set_alpn_protocols(["http/1.1"])
  return made
