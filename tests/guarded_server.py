"""A real server, closed to strangers, that serves the arithmetic model: a process, a second to start."""

import contextlib
import hashlib
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import certificates
import grpc
import toys

PROGRAM = Path(__file__).parent / "chaos" / "misbehaving.py"
START_SECONDS = 60
CONFIG = """
[model]
factory = "none:none"
input.size = 32
[server]
grpc = "127.0.0.1:0"
http = "127.0.0.1:0"
"""
ROLES = ("predict", "explain", "feedback", "read")
TOKENS = {
    "all": ROLES,
    "nothing but predict": ("predict",),
    "nothing but read": ("read",),
    **{f"all but {role}": tuple(other for other in ROLES if other != role) for role in ROLES},
}
"""By the name of each, its roles. Its token is its name with something around it."""


def token_of(name):
    return f"secret-of-{name.replace(' ', '-')}"


def write_tokens(path, tokens, certificates=()):
    entries = [
        f'[[tokens]]\nname = "{name}"\nsha256 = "{hashlib.sha256(token.encode()).hexdigest()}"\n'
        f"roles = {json.dumps(list(TOKENS[name]))}\n"
        for name, token in tokens.items()
    ]
    entries += [
        f'[[certificates]]\nname = "{name}"\nroles = {json.dumps(list(roles))}\n' for name, roles in certificates
    ]
    path.write_text("".join(entries))


@dataclass
class Guarded:
    """A server process with what it is closed by.

    Attributes:
        folder: Has its files.
        authority: Its certificate's CA, and its callers'.
        log: Its log, an object a line.
        ready: What it said when it was ready: where it listens.
    """

    folder: Path
    authority: certificates.Authority
    process: subprocess.Popen = None
    log: list = field(default_factory=list)
    ready: dict = field(default_factory=dict)

    def start(self, *overrides):
        """Starts it, and waits until it is ready."""
        command = [sys.executable, PROGRAM, "serve", "--config", self.folder / "sidecar.toml"]
        for override in (*toys.only("gradcam", "rise"), *overrides):
            command += ["--set", override]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        told = threading.Event()
        threading.Thread(target=self._read, args=(told,), daemon=True).start()
        assert told.wait(START_SECONDS)
        assert self.ready, self.log

    def _read(self, told):
        for line in self.process.stderr:
            self.log.append(line)
            if line.startswith("{") and (entry := json.loads(line))["event"] == "ready":
                self.ready = entry
                told.set()
        told.set()

    @property
    def grpc(self):
        return self.ready["grpc"]

    @property
    def http(self):
        return self.ready["http"]

    def channel(self, pair=None, *, authority=None, options=()):
        """A channel of its own connection, with a certificate or without one."""
        certificate, key = pair or (None, None)
        root = (authority or self.authority).pem
        credentials = grpc.ssl_channel_credentials(root, key, certificate)
        local = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), *options]
        return grpc.secure_channel(self.grpc, credentials, options=local)


@contextlib.contextmanager
def guarded(folder, *overrides):
    authority = certificates.Authority()
    certificates.write_pair(folder, authority.issue("server"))
    (folder / "ca.pem").write_bytes(authority.pem)
    (folder / "sidecar.toml").write_text(CONFIG)
    write_tokens(folder / "tokens.toml", {name: token_of(name) for name in TOKENS})
    server = Guarded(folder, authority)
    tls = ("server.tls.certificate=server.pem", "server.tls.key=server.key")
    try:
        server.start(*tls, *overrides)
        yield server
    finally:
        if server.process is not None:
            server.process.kill()
            server.process.wait()
