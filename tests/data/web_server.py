"""A web server of a folder, with parts of files (Range) and failures on demand."""

import contextlib
import functools
import http.server
import os
import re
import threading


class Handler(http.server.SimpleHTTPRequestHandler):
  """Counts what is sent; `server.failing(path, number of the request)` says whether a request is cut off."""

  def do_GET(self):
    path = self.translate_path(self.path)
    self.server.requests.append((self.command, self.path, self.headers.get("Range")))
    if os.path.isdir(path) or not os.path.exists(path):
      return super().do_GET()
    size = os.path.getsize(path)
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
    start, end = (int(match[1]), min(int(match[2] or size - 1), size - 1)) if match else (0, size - 1)
    if start >= size:
      return self.send_error(416)
    with open(path, "rb") as file:
      file.seek(start)
      content = file.read(end + 1 - start)
    self.send_response(206 if match else 200)
    if match:
      self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
    self.send_header("Accept-Ranges", "bytes")
    self.send_header("Content-Length", str(len(content)))
    self.send_header("ETag", f'"{os.stat(path).st_mtime_ns}"')
    self.end_headers()
    if self.command == "GET":
      cut = self.server.failing(self.path, len(self.server.requests))
      self.wfile.write(content[: len(content) // 2] if cut else content)
      self.server.sent += 0 if cut else len(content)
      if cut:  # The connection ends before its content does.
        self.close_connection = True

  def do_HEAD(self):
    self.do_GET()

  def log_message(self, *arguments):
    pass


@contextlib.contextmanager
def serving(folder):
  """A server of a folder: `server.url`, `requests`, `sent` (bytes), `failing`."""
  server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
  server.url = f"http://127.0.0.1:{server.server_port}"
  server.requests, server.sent, server.failing = [], 0, lambda path, number: False
  thread = threading.Thread(target=server.serve_forever, daemon=True)
  thread.start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()
    thread.join()
