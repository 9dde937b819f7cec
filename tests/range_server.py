"""A web server of one directory that answers range requests and counts the bytes it hands out."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class RangeServer:
    """`url` serves `folder`. `sent` counts body bytes by file, `requests` the requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sent: Counter[str] = Counter()
        self.requests: Counter[str] = Counter()
        self.ranges_allowed = True
        #: the next answers to range requests break off after so many bytes
        self.cut_after: list[int] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}/model/"

    def run(self) -> None:
        self._server.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                name = self.path.removeprefix("/model/")
                path = outer.folder / name
                outer.requests[name] += 1
                if not path.is_file():
                    self._answer(404, b"no", {})
                    return
                content, wanted = path.read_bytes(), self.headers.get("Range")
                if wanted is None or not outer.ranges_allowed:
                    outer.sent[name] += len(content)
                    self._answer(200, content, {})
                    return
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                body = content[int(first) : int(last) + 1]
                cut = outer.cut_after.pop(0) if outer.cut_after and len(body) > 1 else None
                outer.sent[name] += len(body[:cut])
                self._answer(206, body, {"Content-Range": f"bytes {first}-{last}/{len(content)}"}, cut=cut)

            def _answer(self, status: int, body: bytes, headers: dict[str, str], *, cut: int | None = None) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[:cut])
                if cut is not None:
                    self.close_connection = True

            def log_message(self, *_args: Any) -> None:
                pass

        return Handler


@contextmanager
def range_server(folder: Path) -> Iterator[RangeServer]:
    server = RangeServer(folder)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
