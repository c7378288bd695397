from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

Reply = tuple[int, dict[str, str], bytes]


@pytest.fixture(autouse=True)
def computed_on_one_thread(one_thread):
    pass


def completion(text: Any) -> Reply:
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


class Model:
    """A local server; ``replies`` are given in turn, then ``always``. Keeps the requests that it got."""

    def __init__(self) -> None:
        self.replies: list[Reply | float] = []
        self.always: Callable[[dict[str, Any]], Reply] = lambda body: completion("A lesion, seen by a model.")
        self.requests: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.at_once = self.most_at_once = 0
        lock, model = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    model.requests.append((body, dict(self.headers)))
                    model.at_once += 1
                    model.most_at_once = max(model.most_at_once, model.at_once)
                    reply = model.replies.pop(0) if model.replies else None
                try:
                    reply = model.always(body) if reply is None else reply
                    if isinstance(reply, float):
                        time.sleep(reply)
                        return
                    state, headers, content = reply
                    self.send_response(state)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(content)))
                    self.end_headers()
                    self.wfile.write(content)
                finally:
                    with lock:
                        model.at_once -= 1

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def model() -> Iterator[Model]:
    model = Model()
    thread = threading.Thread(target=model.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield model
    model.server.shutdown()
    model.server.server_close()
    thread.join()
