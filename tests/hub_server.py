"""A model hub of a few lines on this machine, for uploads: real HTTP, files kept in memory."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


class Hub(ThreadingHTTPServer):
    """Holds repositories: name → file → content; `cards` is what it read in their READMEs."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.cards: dict[str, dict] = {}
        self.refusal: str | None = None
        self.tokens: set[str | None] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def commit(self, name: str, lines: list[dict]) -> None:
        files = self.repositories[name]
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]


@contextmanager
def hub_on_this_machine() -> Iterator[Hub]:
    hub = Hub()
    thread = Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer({})

    def do_GET(self) -> None:
        name = self.path.removeprefix("/api/models/").partition("?")[0]
        files = [{"rfilename": file} for file in self.server.repositories[name]]
        card = self.server.cards.get(name)
        self._answer({"id": name, "siblings": files, "cardData": card})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers["Authorization"])
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            problems = [{"message": self.server.refusal}] if self.server.refusal else []
            return self._answer({"errors": problems, "warnings": []}, 400 if problems else 200)
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.server.repositories.setdefault(name, {})
            return self._answer({"url": f"{self.server.address}/{name}"})
        name, what, _ = path.removeprefix("/api/models/").rsplit("/", 2)
        if what == "preupload":
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        self.server.commit(name, [json.loads(line) for line in body.splitlines()])
        url = f"{self.server.address}/{name}/commit/{'a' * 40}"
        return self._answer({"success": True, "commitOid": "a" * 40, "commitUrl": url})

    def _answer(self, content: dict, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing in the tests' output."""
