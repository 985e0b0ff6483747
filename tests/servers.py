"""Servers on this machine for tests of downloads: plain files, and the few calls of the Hugging Face hub."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves `files`, contents by path (`/model.onnx`); `requests` are those that came: `GET /model.onnx`."""

    def __init__(self, handler: type[BaseHTTPRequestHandler] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), handler or Files)
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Files(BaseHTTPRequestHandler):
    """Answers with a file of the server, or 404."""

    protocol_version = "HTTP/1.1"
    server: FileServer

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        content = self.server.files.get(self.path)
        self.answer(b"" if content is None else content, 404 if content is None else 200)

    def answer(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Hub(Files):
    """The Hugging Face hub with one commit of each repository; `server.files` are called `/owner/name/file`.

    The calls are those of https://huggingface.co/docs/hub/api that `create_repo`, `upload_folder` and
    `snapshot_download` make, for files that are stored as such (no LFS, no Xet).
    """

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._answer_about("/".join(parts[2:4]), parts[4:5])
            return
        content = self.server.files.get(f"/{'/'.join(parts[:2])}/{'/'.join(parts[4:])}")  # owner/name/resolve/REVISION/
        missing = {"X_Error_Code": "EntryNotFound"} if content is None else {}
        found = content or b""
        headers = {"ETag": f'"{_oid(found)}"', "X_Repo_Commit": self._commit("/".join(parts[:2]))}
        self.answer(found, 404 if content is None else 200, **headers, **missing)

    def _answer_about(self, name: str, call: list[str]) -> None:
        files = self._files_of(name)
        if not files:
            self.answer(b"", 404, X_Error_Code="RepoNotFound")
        elif call == ["tree"]:
            self._answer_json([{"type": "file", "path": k, "size": len(v), "oid": _oid(v)} for k, v in files.items()])
        else:
            self._answer_json(
                {"id": name, "sha": self._commit(name), "siblings": [{"rfilename": file} for file in files]}
            )

    def do_POST(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.strip("/").split("/")
        if self.headers.get("Authorization") != "Bearer secret":
            self.answer(b"", 401)
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            self._answer_json({"url": f"{self.server.address}/{asked['organization']}/{asked['name']}"})
        elif self.path == "/api/validate-yaml":
            self._answer_json({"errors": [], "warnings": []})
        elif parts[4] == "preupload":
            files = json.loads(body)["files"]
            self._answer_json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]}
            )
        else:
            name = "/".join(parts[2:4])
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.files[f"/{name}/{line['value']['path']}"] = content
            address = f"{self.server.address}/{name}/commit/{self._commit(name)}"
            self._answer_json({"success": True, "commitUrl": address, "commitOid": self._commit(name)})

    def _files_of(self, name: str) -> dict[str, bytes]:
        start = f"/{name}/"
        return {path.removeprefix(start): data for path, data in self.server.files.items() if path.startswith(start)}

    def _commit(self, name: str) -> str:
        return hashlib.sha1(json.dumps({k: _oid(v) for k, v in self._files_of(name).items()}).encode()).hexdigest()

    def _answer_json(self, content: dict | list) -> None:
        self.answer(json.dumps(content).encode(), Content_Type="application/json")


def _oid(content: bytes) -> str:
    """Git's name of a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler] | None = None) -> Iterator[FileServer]:
    """A server that runs until the block ends; `shutdown` and `server_close` end it earlier."""
    server = FileServer(handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
