"""One local port that is a storage service, a proxy that answers in place of Google's hosts, and a metadata server."""

import contextlib
import http.server
import pathlib
import socket
import socketserver
import struct
import sys
import threading
import time

from tests.bucket import certificates, control, errors, messages, metadata
from tests.bucket.api import Api
from tests.bucket.faults import STORAGE, WRITES, Effect, Faults
from tests.bucket.messages import Answer, Call, Request
from tests.bucket.objects import Store
from tests.bucket.record import Record, Records


class Server(socketserver.ThreadingTCPServer):
  """Serves from `start` to `stop`, each connection in a thread of its own.

  Args:
    folder: where the certificate is, or is made.
    port: 0 for a free one.

  Attributes:
    store: buckets and objects; `store.add_bucket(name)` declares one.
    records: what was asked.
    faults: what goes wrong.
    latency: seconds that each request about objects or buckets takes longer.
    too_fast: names of objects that were written within a second of their last write.
  """

  allow_reuse_address, daemon_threads, block_on_close, request_queue_size = True, True, False, 256

  def __init__(self, folder: pathlib.Path, port: int = 0):
    super().__init__(("127.0.0.1", port), Connection)
    self.certificate = certificates.make(folder)
    self.tls = certificates.context(self.certificate)
    self.store, self.records, self.faults = Store(), Records(), Faults()
    self.api, self.metadata = Api(self.store), metadata.Metadata()
    self.latency = 0.0
    self._open: set[socket.socket] = set()
    self._open_lock = threading.Lock()

  @property
  def port(self) -> int:
    return self.server_address[1]

  @property
  def too_fast(self) -> list[str]:
    return list(self.store.too_fast)

  def start(self) -> "Server":
    threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    return self

  def stop(self) -> None:
    """Closes the port and every connection."""
    self.shutdown()
    self.server_close()
    with self._open_lock:
      for connection in self._open:
        with contextlib.suppress(OSError):
          connection.shutdown(socket.SHUT_RDWR)

  def reset(self) -> None:
    """Removes buckets, faults and records, and restores the initial settings. The port stays the same."""
    self.faults.clear()
    self.store.clear()
    self.api.uploads.clear()
    self.records.clear()
    self.store.one_write_a_second, self.store.deletes_are_writes = True, False
    self.latency, self.api.page_size, self.api.public, self.metadata.token_seconds = 0.0, 1000, False, 3600

  def handle_error(self, request, client_address) -> None:
    """Ignores clients that close the connection; prints the traceback of any other error, which is this server's."""
    if not isinstance(sys.exception(), OSError | ValueError):
      super().handle_error(request, client_address)

  def opened(self, connection: socket.socket) -> None:
    with self._open_lock:
      self._open.add(connection)

  def closed(self, connection: socket.socket) -> None:
    with self._open_lock:
      self._open.discard(connection)


class Connection(http.server.BaseHTTPRequestHandler):
  """One connection, whose requests are answered one after the other."""

  protocol_version, disable_nagle_algorithm = "HTTP/1.1", True
  server: Server

  def setup(self) -> None:
    super().setup()
    self.base = f"http://127.0.0.1:{self.server.port}"
    self.server.opened(self.connection)

  def finish(self) -> None:
    self.server.closed(self.connection)
    super().finish()
    self.connection.close()

  def log_message(self, format, *args) -> None:
    """Writes nothing."""

  def do_CONNECT(self) -> None:
    """Starts TLS: from now on this connection acts as the host that the client wants to reach."""
    host = self.path.partition(":")[0]
    if host not in certificates.HOSTS:
      self._send(Answer(403, f"There is no way to {host} from here.".encode()))
      self.close_connection = True
      return
    self.connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    self.rfile.close()
    self.server.closed(self.connection)
    self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
    self.server.opened(self.connection)
    self.rfile = self.connection.makefile("rb")
    self.wfile = socketserver._SocketWriter(self.connection)
    self.base, self.close_connection = f"https://{host}", False

  def do_any(self) -> None:
    """Any method but CONNECT."""
    started, began = time.time(), time.monotonic()
    body = self._read_body()
    request = Request.of(self.command, self.path, self.headers, body, self.base)
    if request.path.startswith("/control/") and self.base.startswith("http:"):
      self._send(control.answer(self.server, request))
      return
    call = metadata.classify(request) or self.server.api.classify(request)
    record = Record(started, call.client, call.operation, call.bucket, call.name, bytes_up=len(body))
    if call.operation in STORAGE and self.server.latency:
      time.sleep(self.server.latency)
    fault = self.server.faults.strike(call)
    effect = fault.effect if fault else Effect("none")
    record.faults = (str(effect),) if fault else ()
    answer = self._carry_out(call, effect)
    record.seconds = time.monotonic() - began
    if answer is None:
      self.server.records.add(record)
      self._reset()
      return
    if effect.kind == "corrupt" and answer.body:
      at = min(int(effect.number), len(answer.body) - 1)
      answer.body = answer.body[:at] + bytes([answer.body[at] ^ 0xFF]) + answer.body[at + 1 :]
    # Recorded before it is sent, so that a client that has the answer finds the record.
    cut_at = max(0, min(int(effect.number), len(answer.body) - 1)) if effect.kind == "cut" else None
    record.status = answer.status
    record.bytes_down = 0 if self.command == "HEAD" else len(answer.body) if cut_at is None else cut_at
    self.server.records.add(record)
    self._send(answer, cut_at, effect.number if effect.kind == "trickle" else 0)

  do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_any

  def _carry_out(self, call: Call, effect: Effect) -> Answer | None:
    """The answer, subject to the fault; None if the connection has to be reset."""
    if effect.kind == "status":
      refusal = errors.of_status(int(effect.number), call.permission, call.bucket, call.name)
      refusal.message = effect.message or refusal.message
      return messages.of_refusal(refusal, call.style)
    if effect.kind == "reset":
      return None
    if effect.kind == "cut" and call.operation in WRITES:
      size = len(call.request.body)
      if call.upload and size:
        self.server.api.answer(call, at_most=min(int(effect.number), size - 1))
      return None
    answer = (self.server.metadata if call.client == "metadata" else self.server.api).answer(call)
    if effect.kind == "slow":
      time.sleep(effect.number)
    return None if effect.kind == "lose answer" else answer

  def _read_body(self) -> bytes:
    """The request's body. TensorFlow sends chunks even if it declares a length."""
    # A client with Nagle's algorithm (urllib3 through a proxy) sends the body only once the headers are acknowledged:
    # acknowledge them now and not 40 ms later.
    if hasattr(socket, "TCP_QUICKACK"):
      self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
      return self.rfile.read(int(self.headers.get("Content-Length") or 0))
    parts = []
    while size := int(self.rfile.readline().split(b";")[0], 16):
      parts.append(self.rfile.read(size))
      self.rfile.readline()
    while self.rfile.readline().strip():
      pass
    return b"".join(parts)

  def _send(self, answer: Answer, cut_at: int | None = None, bytes_a_second: float = 0) -> None:
    """Sends an answer: completely, cut after some bytes of the body, or slowly."""
    has_body = answer.status not in (204, 304)
    lines = [f"HTTP/1.1 {answer.status} {self.responses.get(answer.status, ('Unknown',))[0]}"]
    lines += [f"{name}: {value}" for name, value in answer.headers.items()]
    lines += [f"Content-Length: {len(answer.body)}"] if has_body else []
    lines += ["Date: " + self.date_time_string(), "Server: UploadServer"]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    body = answer.body if has_body and self.command != "HEAD" else b""
    if cut_at is not None:
      self.connection.sendall(head + body[:cut_at])
      self._hang_up()
    elif bytes_a_second:
      self.connection.sendall(head)
      step = max(1, int(bytes_a_second / 10))
      for i in range(0, len(body), step):
        time.sleep(0.1)
        self.connection.sendall(body[i : i + step])
    elif len(body) < 65536:
      self.connection.sendall(head + body)
    else:
      self.connection.sendall(head)
      self.connection.sendall(body)

  def _reset(self) -> None:
    """Ends the connection with a TCP reset."""
    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    self._hang_up()

  def _hang_up(self) -> None:
    """Ends the connection without TLS's closing message."""
    self.close_connection = True
    self.rfile.close()
    self.connection.close()
