"""Mirrors of data sets, on the loopback interface."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Mirrors:
    """A server on the loopback interface that counts what it is asked; a path it lacks is a 404."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        mirrors = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                mirrors.asked.append(self.path)
                body = mirrors.files.get(self.path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)

    def url(self, mirror: str) -> str:
        """The base URL of a mirror."""
        return f"http://127.0.0.1:{self.server.server_port}/{mirror}/"

    def offer(self, mirror: str, content: dict[str, bytes]) -> None:
        """Serve these files, gzip-compressed, at that mirror."""
        self.files |= {f"/{mirror}/{stem}.gz": gzip.compress(raw, mtime=0) for stem, raw in content.items()}


@contextmanager
def served() -> Iterator[Mirrors]:
    """Mirrors with nothing on them yet."""
    web = Mirrors()
    thread = threading.Thread(target=web.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield web
    web.server.shutdown()
    thread.join()
    web.server.server_close()
