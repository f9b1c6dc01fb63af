"""A Hub on loopback, in memory: the endpoints that the real `huggingface_hub` client needs to push and pull.

In: HTTP requests of the client. Out: what the Hub would answer, error headers included. Uploads take the plain
LFS path, so clients set `HF_HUB_DISABLE_XET=1`.
"""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKENS = {"hf_writer": ("lab", "write"), "hf_reader": ("visitor", "read")}
LFS_SUFFIXES = (".safetensors", ".png")


@dataclass
class Commit:
    """One state of a repository: path to content."""

    oid: str
    title: str
    files: dict[str, bytes]


@dataclass
class Repo:
    """A model repository; `history` is the main branch, oldest first."""

    name: str
    private: bool
    gated: bool = False
    history: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        wanted = self.tags.get(revision, revision)
        if wanted == "main":
            return self.history[-1]
        return next((commit for commit in self.history if commit.oid == wanted), None)

    def add(self, title: str, files: dict[str, bytes]) -> Commit:
        """The next commit of main; equal content makes none."""
        if self.history and self.history[-1].files == files:
            return self.history[-1]
        names = "".join(f"{path} {hashlib.sha256(data).hexdigest()}" for path, data in sorted(files.items()))
        oid = hashlib.sha1(f"{len(self.history)} {title} {names}".encode()).hexdigest()
        self.history.append(Commit(oid, title, files))
        return self.history[-1]


class Hub:
    """The server; use it as a context manager. `requests` lists every call as `METHOD path`."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(_Handler):
            server_hub = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def put(self, name: str, files: dict[str, bytes], *, private: bool = False, gated: bool = False) -> Repo:
        """Make or extend a repository directly, as someone else's push would."""
        repo = self.repos.setdefault(name, Repo(name, private, gated))
        repo.add("put", files)
        return repo


class _Answer(Exception):
    def __init__(self, status: int, code: str | None = None, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_hub: Hub

    def log_message(self, *_: object) -> None:
        """Keep the test output clean."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        body = self._body()
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        self.server_hub.requests.append(f"{self.command} {url.path}")
        try:
            for method, pattern, action in ROUTES:
                match = re.fullmatch(pattern, url.path)
                if match and self.command in method:
                    action(self, body, *(unquote(part or "") for part in match.groups()))
                    return
            self._send(404, b"{}")
        except _Answer as answer:
            headers = {"X-Error-Code": answer.code} if answer.code else {}
            headers["X-Error-Message"] = answer.message
            self._send(answer.status, json.dumps({"error": answer.message}).encode(), headers)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, json.dumps(value).encode())

    def _who(self) -> tuple[str, str] | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in TOKENS:
            raise _Answer(401, None, "Invalid credentials in Authorization header")
        return TOKENS.get(token)

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        who = self._who()
        repo = self.server_hub.repos.get(name)
        owner = who is not None and name.split("/")[0] == who[0]
        if repo is None or (repo.private and not owner):
            # As the real one: without a token it does not tell a missing repository from a private one.
            raise _Answer(404 if who else 401, "RepoNotFound", "Repository not found")
        if repo.gated and not owner:
            raise _Answer(403, "GatedRepo", "Access to this repository is restricted")
        if write and (not owner or who is None or who[1] != "write"):
            raise _Answer(403, None, "You have no permission to write here")
        return repo

    def _commit(self, repo: Repo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise _Answer(404, "RevisionNotFound", "Invalid rev id")
        return commit

    # Accounts and repositories

    def whoami(self, _body: bytes) -> None:
        who = self._who()
        if who is None:
            raise _Answer(401, None, "No token")
        self._json({"type": "user", "name": who[0], "orgs": [], "auth": {"accessToken": {"role": who[1]}}})

    def create(self, body: bytes) -> None:
        asked, who = json.loads(body), self._who()
        if who is None:
            raise _Answer(401, None, "No token")
        name = f"{asked.get('organization') or who[0]}/{asked['name']}"
        if who[1] != "write" or name.split("/")[0] != who[0]:
            raise _Answer(403, None, "You have no permission to create this")
        url = f"{self.server_hub.url}/{name}"
        if name in self.server_hub.repos:
            self._json({"url": url, "error": "exists"}, 409)
            return
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        repo = self.server_hub.repos.setdefault(name, Repo(name, private))
        repo.add("initial commit", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._json({"url": url, "name": name, "id": name})

    def info(self, _body: bytes, name: str, revision: str = "main") -> None:
        repo = self._repo(name)
        commit = self._commit(repo, revision)
        self._json(
            {
                "_id": name,
                "id": name,
                "modelId": name,
                "sha": commit.oid,
                "lastModified": "2026-01-01T00:00:00.000Z",
                "private": repo.private,
                "gated": repo.gated,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in sorted(commit.files)],
            }
        )

    def tree(self, _body: bytes, name: str, revision: str, _folder: str = "") -> None:
        commit = self._commit(self._repo(name), revision)
        self._json([_entry(path, data) for path, data in sorted(commit.files.items())])

    def paths_info(self, body: bytes, name: str, revision: str) -> None:
        commit = self._commit(self._repo(name), revision)
        wanted = parse_qs(body.decode()).get("paths", [])
        self._json([_entry(path, commit.files[path]) for path in wanted if path in commit.files])

    def refs(self, _body: bytes, name: str) -> None:
        repo = self._repo(name)
        tags = [{"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": oid} for tag, oid in repo.tags.items()]
        main = {"name": "main", "ref": "refs/heads/main", "targetCommit": repo.history[-1].oid}
        self._json({"branches": [main], "tags": tags, "converts": []})

    def tag(self, body: bytes, name: str, revision: str) -> None:
        repo, asked = self._repo(name, write=True), json.loads(body)
        if asked["tag"] in repo.tags:
            self._json({"error": "exists"}, 409)
            return
        repo.tags[asked["tag"]] = self._commit(repo, revision).oid
        self._json({})

    # Upload

    def validate_yaml(self, _body: bytes) -> None:
        self._json({"errors": [], "warnings": []})

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        commit = self._commit(self._repo(name, write=True), revision)
        answer = []
        for file in json.loads(body)["files"]:
            known = commit.files.get(file["path"])
            mode = "lfs" if file["path"].endswith(LFS_SUFFIXES) else "regular"
            oid = None if known is None else _entry(file["path"], known)["oid"]
            answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answer, "commitOid": commit.oid})

    def lfs_batch(self, body: bytes, name: str) -> None:
        self._repo(name, write=True)
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.server_hub.blobs:
                href = f"{self.server_hub.url}/upload/{wanted['oid']}"
                entry["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _Answer(400, None, "sha256 differs")
        self.server_hub.blobs[oid] = body
        self._send(200, b"")

    def commit(self, body: bytes, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        head = self._commit(repo, revision)
        files, title = dict(head.files), ""
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, head.oid):
                    raise _Answer(412, None, "A commit has happened since")
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server_hub.blobs[value["oid"]]
            elif item["key"] == "deletedFile":
                files.pop(value["path"])
        made = repo.add(title, files)
        url = f"{self.server_hub.url}/{name}/commit/{made.oid}"
        self._json({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})

    # Download

    def resolve(self, _body: bytes, name: str, revision: str, path: str) -> None:
        commit = self._commit(self._repo(name), revision)
        if path not in commit.files:
            raise _Answer(404, "EntryNotFound", "Entry not found")
        data = commit.files[path]
        entry = _entry(path, data)
        headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{entry["oid"]}"', "Accept-Ranges": "bytes"}
        if "lfs" in entry:
            headers |= {"ETag": f'"{entry["lfs"]["oid"]}"', "X-Linked-ETag": f'"{entry["lfs"]["oid"]}"'}
            headers["X-Linked-Size"] = str(len(data))
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if span:
            first, last = int(span[1]), int(span[2] or len(data) - 1)
            headers["Content-Range"] = f"bytes {first}-{min(last, len(data) - 1)}/{len(data)}"
            self._send(206, data[first : last + 1], headers)
            return
        self._send(200, data, headers)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {"type": "file", "oid": blob, "size": len(data), "path": path}
    if path.endswith(LFS_SUFFIXES):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


NAME = r"([^/]+/[^/]+)"
ROUTES: list[tuple[tuple[str, ...], str, Callable[..., None]]] = [
    (("GET",), "/api/whoami-v2", _Handler.whoami),
    (("POST",), "/api/repos/create", _Handler.create),
    (("POST",), "/api/validate-yaml", _Handler.validate_yaml),
    (("GET",), rf"/api/models/{NAME}", _Handler.info),
    (("GET",), rf"/api/models/{NAME}/revision/(.+)", _Handler.info),
    (("GET",), rf"/api/models/{NAME}/refs", _Handler.refs),
    (("GET",), rf"/api/models/{NAME}/tree/([^/]+)(?:/(.*))?", _Handler.tree),
    (("POST",), rf"/api/models/{NAME}/paths-info/(.+)", _Handler.paths_info),
    (("POST",), rf"/api/models/{NAME}/preupload/(.+)", _Handler.preupload),
    (("POST",), rf"/api/models/{NAME}/commit/(.+)", _Handler.commit),
    (("POST",), rf"/api/models/{NAME}/tag/(.+)", _Handler.tag),
    (("POST",), rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (("PUT",), r"/upload/([0-9a-f]{64})", _Handler.upload),
    (("GET", "HEAD"), rf"/{NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]


if __name__ == "__main__":
    with Hub() as running:
        print(running.url, flush=True)
        while True:
            time.sleep(3600)
