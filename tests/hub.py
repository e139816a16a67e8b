"""A stand-in for the Hugging Face hub on 127.0.0.1: the endpoints that pushing and loading a model call."""

import base64
import contextlib
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import yaml

TOKEN = "hf_test"
# The table of https://huggingface.co/docs/hub/repositories-licenses
LICENCE_TABLE = """
apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0
bigcode-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear
c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0
cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl
ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0
isc lppl-1.3c ms-pl mpl-2.0 odc-by odbl openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib
pddl lgpl-lr deepfloyd-if-license llama2 gemma unknown other
"""
LICENCES = frozenset(LICENCE_TABLE.split())


@dataclass
class Repository:
    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


@dataclass
class Hub:
    """A running stand-in of the hub: its address, and its content."""

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    uploads: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def environment(self, cache) -> dict[str, str]:
        """Return the environment of a process that uses it as the hub."""
        return {
            "HF_ENDPOINT": self.url, "HF_TOKEN": TOKEN, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1",
        }  # fmt: skip


def metadata_errors(content: str) -> list[str]:
    """Return the errors of a model card, by the specification of its metadata (hub-docs, modelcard.md)."""
    match = re.match(r"---\n(.*?)\n---\n", content, re.S)
    data = yaml.safe_load(match[1]) if match else None
    if not isinstance(data, dict):
        return ["no metadata"]
    errors = [] if data.get("license") in LICENCES else [f"license {data.get('license')!r}"]
    if data.get("license") == "other" and not re.fullmatch(r"[a-z0-9.-]+", str(data.get("license_name"))):
        errors.append("license_name")
    for model in data.get("model-index", []):
        for result in model["results"]:
            needed = [
                result["task"].get("type"),
                result["dataset"].get("type"),
                result["dataset"].get("name"),
            ]
            needed += [m.get(key) for m in result["metrics"] for key in ("type", "value")]
            errors += [] if None not in needed and model["name"] else ["model-index"]
    return errors


def _respond(hub: Hub):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def respond(self, value, status=200, **headers):
            body = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            for name, content in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), content)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def missing(self):
            self.respond({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")

        def do_any(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = self.path.split("?")[0]
            hub.requests.append(f"{self.command} {path}")
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if self.command == "PUT" and path.startswith("/lfs/"):
                hub.uploads[path.removeprefix("/lfs/")] = body
                return self.respond({})
            if self.command == "POST" and not allowed and path != "/api/validate-yaml":
                return self.respond({"error": "Invalid username or password."}, 401)
            for pattern, act in ROUTES:
                if match := re.fullmatch(pattern, path):
                    return act(self, body, *match.groups())
            return self.missing()

        do_GET = do_HEAD = do_POST = do_PUT = do_any  # noqa: N815

        def validate(self, body):
            errors = [{"message": error} for error in metadata_errors(json.loads(body)["content"])]
            self.respond({"errors": errors, "warnings": []}, 400 if errors else 200)

        def create(self, body):
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            status = 409 if name in hub.repositories else 200
            hub.repositories.setdefault(name, Repository(request.get("visibility") == "private"))
            self.respond({"url": f"{hub.url}/{name}", "error": "exists"}, status)

        def info(self, _, name, revision=None):
            if name not in hub.repositories:
                return self.missing()
            repository = hub.repositories[name]
            self.respond({"id": name, "sha": repository.sha, "private": repository.private, "siblings": []})

        def tree(self, _, name, revision):
            files = hub.repositories[name].files.items()
            entries = [
                {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
                for p, c in files
            ]
            self.respond(entries)

        def preupload(self, body, name):
            modes = [
                {"path": f["path"], "uploadMode": mode, "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
                for mode in ["lfs" if f["path"].endswith((".safetensors", ".onnx")) else "regular"]
            ]
            self.respond({"files": modes})

        def batch(self, body, name):
            objects = [
                {
                    "oid": o["oid"],
                    "size": o["size"],
                    "actions": {"upload": {"href": f"{hub.url}/lfs/{o['oid']}"}},
                }
                for o in json.loads(body)["objects"]
            ]
            self.respond({"transfer": "basic", "objects": objects})

        def commit(self, body, name):
            repository = hub.repositories[name]
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "header":
                    repository.messages.append(value["summary"])
                elif line["key"] == "file":
                    repository.files[value["path"]] = base64.b64decode(value["content"])
                else:
                    content = hub.uploads[value["oid"]]
                    assert hashlib.sha256(content).hexdigest() == value["oid"]
                    repository.files[value["path"]] = content
            self.respond(
                {"commitUrl": f"{hub.url}/{name}/commit/{repository.sha}", "commitOid": repository.sha}
            )

        def resolve(self, _, name, revision, path):
            repository = hub.repositories[name]
            etag = hashlib.sha1(repository.files[path]).hexdigest()
            self.respond(repository.files[path], ETag=f'"{etag}"', X_Repo_Commit=repository.sha)

    ROUTES = [  # noqa: N806
        ("/api/validate-yaml", Handler.validate),
        ("/api/repos/create", Handler.create),
        ("/api/models/([^/]+/[^/]+)", Handler.info),
        ("/api/models/([^/]+/[^/]+)/revision/([^/]+)", Handler.info),
        ("/api/models/([^/]+/[^/]+)/tree/([^/]+)", Handler.tree),
        ("/api/models/([^/]+/[^/]+)/preupload/main", Handler.preupload),
        ("/api/models/([^/]+/[^/]+)/commit/main", Handler.commit),
        (r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", Handler.batch),
        ("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", Handler.resolve),
    ]
    return Handler


@contextlib.contextmanager
def running():
    """Run a hub for as long as the context lasts."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _respond(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
