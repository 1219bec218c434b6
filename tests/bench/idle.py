"""Memory of connections that have asked once and now wait, and what of it stays when they are gone."""

import contextlib
import socket
import ssl
import time
from urllib.parse import urlsplit

from login import unverified
from processes import Trouble

# How long memory must have stayed the same, within this share, to be taken as settled; and how long that may take.
STILL, SHARE, PATIENCE = 1.0, 0.01, 15


class Crowd:
    """Connections that stay open after one request each."""

    def __init__(self, sut):
        parts = urlsplit(sut.url)
        self.address, self.body, self.connections = (parts.hostname, parts.port), sut.way.answer, []
        self.context = unverified() if parts.scheme == "https" else None
        self.request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        for connection in self.connections:
            connection.close()

    def grow(self, count):
        for _ in range(count):
            connection = socket.create_connection(self.address, timeout=10)
            if self.context:
                connection = self.context.wrap_socket(connection)
            self.connections.append(connection)
            self.ask(connection)

    def ask(self, connection):
        connection.sendall(self.request)
        answer = b""
        while not answer.endswith(self.body):
            more = connection.recv(65536)
            answer += more
            if not more or len(answer) > len(self.body) + 8192:
                raise Trouble(f"an idle connection was answered {answer[:300]!r}")
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Trouble(f"an idle connection was answered {answer[:300]!r}")

    def check(self):
        """None has been closed from the other side meanwhile."""
        for connection in self.connections:
            connection.setblocking(False)
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                raise Trouble(f"of {len(self.connections)} idle connections one was closed, or got {connection.recv(1)!r}")


def settled(process):
    """The memory of this process, when it changes no more."""
    end = time.monotonic() + PATIENCE
    last, since = process.pss(), time.monotonic()
    while time.monotonic() < min(end, since + STILL):
        time.sleep(0.1)
        now = process.pss()
        if abs(now - last) > SHARE * last:
            last, since = now, time.monotonic()
    return process.pss()


def measure(rig, stack, group, row, chosen):
    """Bytes per connection; in clear twice as many come, and their memory is looked at again when they have been gone for long."""
    with rig.other_ports():
        sut = row.recipe(rig, stack, group.way)
    before = settled(sut.process)
    with Crowd(sut) as crowd:
        crowd.grow(chosen.crowd)
        found = {"before": before, "idle": (settled(sut.process) - before) / chosen.crowd, "crowd": chosen.crowd}
        if not group.way.tls:
            crowd.grow(chosen.crowd)
        crowd.check()
    if not group.way.tls:
        found["later"] = (chosen.gone, lambda: gone(sut.process, before))
    return found


def gone(process, before):
    after = process.pss()
    return {"gone": after, "gone_ratio": after / before}
