"""A Hugging Face Hub on the loopback interface, in memory: the real client talks to it over HTTP.

Start: ``with LoopbackHub() as hub: subprocess.run(..., env=hub.client_environment(home))``. The client reads its
endpoint when it is imported, and the tests of this project run offline, so clients are processes of their own.
Protocol: what huggingface_hub 2 sends (create, preupload, LFS, commit, tree, resolve with ETag and ranges).
"""

import base64
import hashlib
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

TOKEN = "hf_loopback"
REPO = r"(?P<repo>[^/]+/[^/]+)"
LFS_BYTES = 1 << 16  # files of this size and weights are uploaded as LFS objects


class LoopbackHub:
    """Repositories are lists of commits, oldest first; a commit is (id, {path: content})."""

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.objects: dict[str, bytes] = {}  # LFS objects by sha256
        self.requests: list[tuple[str, str]] = []  # (method, path) of every request
        self.refuse: Callable[[str, str], int | None] = lambda method, path: None  # status to answer instead, if any
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.hub = self  # type: ignore[attr-defined]
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def client_environment(self, home: Path) -> dict[str, str]:
        """Environment of a client process with an empty cache in ``home``."""
        ours = {"HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        ours |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        return {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | ours

    def commit(self, repo: str, files: dict[str, bytes]) -> str:
        """Let ``files`` be the content of a repository, which is made if needed; returns the commit's id."""
        history = self.repos.setdefault(repo, [])
        parent = history[-1][0] if history else ""
        digest = hashlib.sha1(f"{parent} {len(history)} {sorted(files)}".encode())
        for path in sorted(files):
            digest.update(hashlib.sha256(files[path]).digest())
        history.append((digest.hexdigest(), dict(files)))
        return history[-1][0]

    def commit_folder(self, repo: str, folder: Path) -> str:
        """Let the files of ``folder`` be the content of a repository."""
        paths = (path for path in folder.rglob("*") if path.is_file())
        return self.commit(repo, {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths})

    def fetched(self, repo: str) -> Counter[str]:
        """How often each file of a repository was downloaded, wholly or in part."""
        found = (re.fullmatch(rf"/{re.escape(repo)}/resolve/[^/]+/(.+)", path) for _, path in self.requests_of("GET"))
        return Counter(match[1] for match in found if match)

    def requests_of(self, method: str) -> list[tuple[str, str]]:
        return [request for request in self.requests if request[0] == method]


class Handler(BaseHTTPRequestHandler):
    """One method per call of the API, found by ``ROUTES``."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        pass

    def handle_request(self) -> None:
        self.hub: LoopbackHub = self.server.hub  # type: ignore[attr-defined]
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0)) if self.command != "GET" else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.read_chunk, b""))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        if (status := self.hub.refuse(self.command, path)) is not None:
            return self.answer({"error": "refused by the test"}, status)
        signed = self.headers.get("Authorization") == f"Bearer {TOKEN}" or path.startswith("/lfs/object/")
        if self.command in ("POST", "PUT") and not signed:
            return self.answer({"error": "Invalid username or password."}, 401)
        for method, pattern, name in ROUTES:
            if self.command in method.split() and (match := re.fullmatch(pattern, path)):
                return getattr(self, name)(**{key: text for key, text in match.groupdict().items() if text})
        return self.answer({"error": f"unknown call {self.command} {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def read_chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        return self.rfile.read(size + 2)[:size]

    def answer(self, value: object = b"", status: int = 200, headers: dict[str, str] | None = None) -> None:
        content = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def missing(self, code: str) -> None:
        self.answer(b"", 404, {"X-Error-Code": code, "X-Error-Message": code})

    def snapshot(self, repo: str, revision: str = "main") -> tuple[str, dict[str, bytes]] | None:
        """The commit that a revision names; None after an error was answered."""
        history = self.hub.repos.get(repo)
        if history is None:
            self.missing("RepoNotFound")
            return None
        found = history[-1:] if revision == "main" else [commit for commit in history if commit[0] == revision]
        if not found:
            self.missing("RevisionNotFound")
        return found[0] if found else None

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked.get('organization') or 'user'}/{asked['name'].split('/')[-1]}"
        if repo in self.hub.repos:
            return self.answer({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}, 409)
        self.hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        return self.answer({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def who(self) -> None:
        self.answer({"type": "user", "name": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate_card(self) -> None:
        self.answer({"errors": [], "warnings": []})

    def info(self, repo: str, revision: str = "main") -> None:
        if commit := self.snapshot(repo, revision):
            siblings = [{"rfilename": path} for path in sorted(commit[1])]
            self.answer({"id": repo, "modelId": repo, "sha": commit[0], "private": False, "tags": [],
                         "downloads": 0, "likes": 0, "siblings": siblings})  # fmt: skip

    def describe(self, path: str, content: bytes) -> dict[str, object]:
        entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
        if is_lfs(path, len(content)):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        return entry

    def tree(self, repo: str, revision: str, folder: str = "") -> None:
        if commit := self.snapshot(repo, revision):
            paths = sorted(path for path in commit[1] if path.startswith(folder.lstrip("/")))
            self.answer([self.describe(path, commit[1][path]) for path in paths])

    def paths_info(self, repo: str, revision: str) -> None:
        if commit := self.snapshot(repo, revision):
            asked = json.loads(self.body)["paths"]
            self.answer([self.describe(path, commit[1][path]) for path in asked if path in commit[1]])

    def preupload(self, repo: str, revision: str) -> None:
        if commit := self.snapshot(repo, revision):
            answer = []
            for file in json.loads(self.body)["files"]:
                mode = "lfs" if is_lfs(file["path"], file["size"]) else "regular"
                present = {"oid": git_oid(commit[1][file["path"]])} if file["path"] in commit[1] else {}
                answer.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **present})
            self.answer({"files": answer})

    def lfs_batch(self, repo: str) -> None:
        objects = []
        for wanted in json.loads(self.body)["objects"]:
            entry = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/object/{wanted['oid']}"}}
            objects.append(entry)
        self.answer({"transfer": "basic", "objects": objects})

    def lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer({"error": "content does not match oid"}, 422)
        self.hub.objects[oid] = self.body
        return self.answer()

    def commit(self, repo: str, revision: str) -> None:
        if (before := self.snapshot(repo, revision)) is None:
            return None
        files = dict(before[1])
        for line in self.body.splitlines():
            key, value = (entry := json.loads(line))["key"], entry["value"]
            if key == "header" and value.get("parentCommit") not in (None, before[0]):
                return self.answer({"error": "A commit has happened since. Please refresh and try again."}, 412)
            if key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return self.answer({"error": f"LFS object {value['oid']} was not uploaded"}, 400)
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                files.pop(value["path"], None)
            elif key == "deletedFolder":
                files = {path: content for path, content in files.items() if not path.startswith(value["path"])}
        commit = self.hub.commit(repo, files)
        return self.answer(
            {"success": True, "commitOid": commit, "commitUrl": f"{self.hub.url}/{repo}/commit/{commit}"}
        )

    def resolve(self, repo: str, revision: str, path: str) -> None:
        if (commit := self.snapshot(repo, revision)) is None:
            return None
        headers = {"X-Repo-Commit": commit[0]}
        if path not in commit[1]:
            return self.answer(b"", 404, headers | {"X-Error-Code": "EntryNotFound", "X-Error-Message": "not found"})
        content = commit[1][path]
        digest = hashlib.sha256(content).hexdigest() if is_lfs(path, len(content)) else git_oid(content)
        headers |= {"ETag": f'"{digest}"', "Accept-Ranges": "bytes"}
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(match[1]), min(int(match[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.answer(content[first : last + 1], 206, headers)
        return self.answer(content, 200, headers)


ROUTES = [
    ("POST", r"/api/repos/create", "create"),
    ("GET", r"/api/whoami-v2", "who"),
    ("POST", r"/api/validate-yaml", "validate_card"),
    ("GET", rf"/api/models/{REPO}", "info"),
    ("GET", rf"/api/models/{REPO}/revision/(?P<revision>[^/]+)", "info"),
    ("GET", rf"/api/models/{REPO}/tree/(?P<revision>[^/]+)(?P<folder>/.*)?", "tree"),
    ("POST", rf"/api/models/{REPO}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", rf"/api/models/{REPO}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/object/(?P<oid>\w+)", "lfs_put"),
    ("POST", rf"/api/models/{REPO}/commit/(?P<revision>[^/]+)", "commit"),
    ("GET HEAD", rf"/{REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


def is_lfs(path: str, size: int) -> bool:
    return path.endswith(".safetensors") or size >= LFS_BYTES


def git_oid(content: bytes) -> str:
    """The id git gives to a file."""
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
