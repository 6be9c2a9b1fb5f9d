"""A Hugging Face Hub on the loopback interface, in memory: the real client talks to it over HTTP.

Start: ``with LoopbackHub() as hub: subprocess.run(..., env=hub.client_environment(home))``. The client reads its
endpoint when it is imported, and the tests of this project run offline, so clients are processes of their own.
Protocol: what huggingface_hub 2 sends (create, preupload, LFS, commit, tree, resolve with ETag and ranges), and how the
Hub refuses: an unknown token, one that may only read, private and gated repositories, a card with bad metadata.
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

from hub_cards import card_errors

TOKEN, READER = "hf_loopback", "hf_reader"  # may do everything; may see what is neither private nor gated
REPO = r"(?P<repo>[^/]+/[^/]+)"
LFS_BYTES = 1 << 16  # files of this size and weights are uploaded as LFS objects


class LoopbackHub:
    """Repositories are lists of commits, oldest first; a commit is (id, {path: content}).

    A branch is a repository of its own, named ``user/name@branch``.
    """

    def __init__(self) -> None:
        self.repos: dict[str, list[tuple[str, dict[str, bytes]]]] = {}
        self.objects: dict[str, bytes] = {}  # LFS objects by sha256
        self.requests: list[tuple[str, str]] = []  # (method, path) of every request
        self.private: set[str] = set()
        self.gated: set[str] = set()
        self.refuse: Callable[[str, str], int | None] = lambda method, path: None  # status to answer instead, if any
        self.cut: Callable[[str, str], bool] = lambda method, path: False  # whether to hang up amid a request
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
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        length = int(self.headers.get("Content-Length") or 0) if self.command != "GET" else 0
        if self.hub.cut(self.command, path):
            self.rfile.read(length // 2)
            self.close_connection = True
            return None
        self.body = self.rfile.read(length)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.read_chunk, b""))
        if (status := self.hub.refuse(self.command, path)) is not None:
            return self.answer({"error": "refused by the test"}, status)
        kind = "spaces/" if path.startswith(("/api/spaces/", "/spaces/")) else ""
        path = path.replace("/api/spaces/", "/api/models/").removeprefix("/spaces")
        for method, pattern, name in ROUTES:
            if self.command in method.split() and (match := re.fullmatch(pattern, path)):
                arguments = {key: text for key, text in match.groupdict().items() if text}
                if "repo" in arguments:
                    arguments["repo"] = kind + arguments["repo"]
                if path.startswith("/lfs/object/") or self.allowed(name, arguments.get("repo", "")):
                    return getattr(self, name)(**arguments)
                return None
        return self.answer({"error": f"unknown call {self.command} {path}"}, 404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_request

    def allowed(self, name: str, repo: str) -> bool:
        """Whether the caller may do this; otherwise the refusal was answered."""
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        owner, known = token == TOKEN, repo in self.hub.repos or not repo
        if token not in (TOKEN, READER, ""):
            self.refusal(401, "Invalid credentials in Authorization header")
        elif repo and not owner and (repo in self.hub.private or not known):
            self.refusal(404 if token else 401, "Repository not found", "RepoNotFound")
        elif repo in self.hub.gated and not owner and name != "info":
            self.refusal(403, f"Access to model {repo} is restricted", "GatedRepo")
        elif name == "who" and not token:
            self.refusal(401, "Invalid username or password.")
        elif name in ("create", "preupload", "lfs_batch", "commit") and not owner:
            self.refusal(403, "You don't have the rights to write here")
        else:
            return True
        return False

    def refusal(self, status: int, message: str, code: str | None = None) -> None:
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.answer({"error": message}, status, headers)

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
        branch = history if revision == "main" else self.hub.repos.get(f"{repo}@{revision}", [])
        found = branch[-1:] or [commit for commit in history if commit[0] == revision]
        if not found:
            self.missing("RevisionNotFound")
        return found[0] if found else None

    def create(self) -> None:
        asked = json.loads(self.body)
        repo = f"{asked.get('organization') or 'user'}/{asked['name'].split('/')[-1]}"
        if repo.split("/")[0] != "user":
            return self.refusal(403, f'You don\'t have the rights to create a model under the namespace "{repo}"')
        if asked.get("type") == "space":
            assert asked["sdk"] == "gradio"
            repo = f"spaces/{repo}"
        if repo in self.hub.repos:
            return self.answer({"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"}, 409)
        self.hub.commit(repo, {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"})
        if asked.get("visibility") == "private" or asked.get("private"):
            self.hub.private.add(repo)
        return self.answer({"url": f"{self.hub.url}/{repo}", "name": repo, "id": repo})

    def who(self) -> None:
        self.answer({"type": "user", "name": "user", "orgs": [], "auth": {"accessToken": {"role": "write"}}})

    def validate_card(self) -> None:
        errors = card_errors(json.loads(self.body)["content"])
        self.answer({"errors": [{"message": error} for error in errors], "warnings": []}, 400 if errors else 200)

    def info(self, repo: str, revision: str = "main") -> None:
        if commit := self.snapshot(repo, revision):
            siblings = [{"rfilename": path} for path in sorted(commit[1])]
            self.answer({"id": repo, "modelId": repo, "sha": commit[0], "tags": [],
                         "private": repo in self.hub.private, "gated": "auto" if repo in self.hub.gated else False,
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
                stored = commit[1].get(file["path"])
                present = {"oid": content_oid(file["path"], stored)} if stored is not None else {}
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
        commit = self.hub.commit(repo if revision == "main" else f"{repo}@{revision}", files)
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
        headers |= {"ETag": f'"{content_oid(path, content)}"', "Accept-Ranges": "bytes"}
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


def content_oid(path: str, content: bytes) -> str:
    """What tells one content of a file from another: the sha256 of an LFS object, else git's id."""
    return hashlib.sha256(content).hexdigest() if is_lfs(path, len(content)) else git_oid(content)
