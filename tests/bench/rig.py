"""What stands around the systems under test (upstream, Redis, provider, on core 1), and how each of these starts on core 0."""

import contextlib
import json
import os
import secrets
import signal
import string
import subprocess
import sys
import time
from pathlib import Path

from login import get, sign_in
from processes import Process, Trouble, free_ports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SUT_CORE, OTHER_CORE = 0, 1
BODY_LENGTH = 1155
BODY = json.dumps({"orders": [{"id": n, "state": "shipped", "total": 4200 + n} for n in range(24)], "more": ""}).encode()
BODY = BODY.replace(b'""', b'"%s"' % (b"x" * (BODY_LENGTH - len(BODY))))
SESSION = "__Host-Http-cloakroom"
MEMORY = "store: { memory: {} }"


def end_in_order():
    """From now on a signal ends this program as an error would: whatever it has started ends first."""
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda number, _frame: sys.exit(128 + number))


def step_aside():
    """Keeps this process, and the load generators that it starts, off the core of what is measured. Builds want both: they come first."""
    if not {SUT_CORE, OTHER_CORE} <= os.sched_getaffinity(0):
        sys.exit("Two cores are needed: one for what is measured, one for all the rest.")
    os.sched_setaffinity(0, {OTHER_CORE})


class Template(string.Template):
    delimiter = "@"  # nginx has the dollar


def write(folder, name, **values):
    """A config of conf/ with its values, in the run's folder."""
    path = folder / name
    path.write_text(Template((HERE / "conf" / name).read_text()).substitute(values))
    return path


class Sut:
    """A system under test that serves: its process, where and how it is asked, and which upstream answers."""

    def __init__(self, process, origin, upstream, path="/open/orders", cookie=None, authenticates=False, try_it=True):
        self.process, self.upstream = process, upstream
        self.url = origin + path
        self.headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*"}
        if authenticates:
            status, *_ = get(self.url, self.headers)
            if status not in (302, 401):
                raise Trouble(f"{process.name} answers {status} without a session")
        if cookie:
            self.headers["Cookie"] = cookie
        status, _, body = get(self.url, self.headers) if try_it else (200, None, BODY)
        if (status, body) != (200, BODY):
            raise Trouble(f"{process.name} answers {status} {body[:300]!r}: {process.written()}")
        self.seen = upstream.count()

    def settle(self):
        """Waits until those requests are over that a load has left, and says how many have reached the upstream since the last time."""
        same, last, end = 0, None, time.monotonic() + 10
        while same < 4:
            now = self.upstream.count()
            same, last = (same + 1, now) if now == last else (0, now)
            if time.monotonic() > end:
                raise Trouble(f"{self.process.name} is not done with the last load after 10 seconds")
            time.sleep(0.05)
        reached, self.seen = last - self.seen, last
        return reached


class Upstream:
    """nginx with the answer. It counts the requests that reach it."""

    def __init__(self, process, port):
        self.process, self.port, self.asked = process, port, 0
        process.wait_for_port(port)

    def count(self):
        """Without those that ask for the count."""
        _, _, page = get(f"http://127.0.0.1:{self.port}/count", {})
        self.asked += 1
        return int(page.split()[9]) - self.asked


class Rig(contextlib.ExitStack):
    """Everything on core 1, and the recipes for core 0. Leaving it ends all."""

    def __init__(self, run, cloakroom):
        super().__init__()
        self.run, self.cloakroom = run, cloakroom
        (run / "tmp").mkdir()
        run.chmod(0o755)  # nginx' and apache's workers are another user
        ports = free_ports(5)
        self.port, self.admin, self.redis_port, self.upstream_port, self.other_upstream_port = ports
        self.key = secrets.token_urlsafe(32)
        self.certificate, self.certificate_key = run / "tls.crt", run / "tls.key"

    def begin(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", self.certificate_key, "-out", self.certificate],
            check=True, capture_output=True)
        self.upstream = self.start_upstream(self, "upstream", self.upstream_port, OTHER_CORE)
        self.redis = self.enter_context(Process(
            "redis", ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                      "--dir", str(self.run)], OTHER_CORE, self.run))
        self.redis.wait_for_port(self.redis_port)
        clients = [
            {"client_id": "cloakroom", "redirect_uris": [f"{scheme}://127.0.0.1:{self.port}/bff/callback" for scheme in ("http", "https")]},
            {"client_id": "apache", "redirect_uris": [f"http://127.0.0.1:{self.port}/private/callback"]},
        ]
        # Tokens that outlive the run: a refresh in the middle is not what is measured.
        config = {"issuer_host": "127.0.0.1", "login": "auto", "token_format": "jwt", "access_token_ttl": 36000,
                  "clients": [client | {"client_secret": "secret"} for client in clients]}
        provider = self.enter_context(Process(
            "provider", ["node", str(ROOT / "tests/provider/provider.mjs")], OTHER_CORE, self.run,
            env=os.environ | {"OP_CONFIG": json.dumps(config)}, ready_line=True))
        if not provider.ready_line:
            raise Trouble(f"the provider does not start: {provider.written()}")
        self.issuer = json.loads(provider.ready_line)["issuer"]

    def start_upstream(self, stack, name, port, core):
        (self.run / name).mkdir(exist_ok=True)
        config = write(self.run, "upstream.conf", port=port, body=BODY.decode())
        config = config.rename(self.run / f"{name}.conf")
        return Upstream(stack.enter_context(Process(name, ["nginx", "-e", "stderr", "-p", str(self.run / name), "-c", str(config)], core, self.run)), port)

    # --- the systems under test: each a function of the stack that ends it, and of whether it serves TLS and HTTP/2

    def alone(self, stack, _tls, _http2):
        upstream = self.start_upstream(stack, "upstream-alone", self.other_upstream_port, SUT_CORE)
        return Sut(upstream.process, f"http://127.0.0.1:{upstream.port}", upstream)

    def nginx(self, stack, tls, http2):
        listen = (" ssl" if tls else "") + (" http2" if http2 else "")
        lines = f"ssl_certificate {self.certificate}; ssl_certificate_key {self.certificate_key}; ssl_protocols TLSv1.2 TLSv1.3;"
        config = write(self.run, "nginx.conf", port=self.port, upstream=self.upstream_port, listen=listen, tls=lines if tls else "")
        # Without TLS a listener of nginx has either HTTP/1.1 or HTTP/2, which only the load generators speak.
        return self.sut(stack, ["nginx", "-e", "stderr", "-p", str(self.run), "-c", str(config)], tls, try_it=tls or not http2)

    def haproxy(self, stack, tls, _http2):
        config = write(self.run, "haproxy.cfg", port=self.port, upstream=self.upstream_port)
        return self.sut(stack, ["haproxy", "-db", "-f", str(config)], tls)

    def apache(self, stack, tls, _http2):
        config = write(
            self.run, "apache.conf", run=self.run, port=self.port, upstream=self.upstream_port, redis=self.redis_port, issuer=self.issuer,
            modules="/usr/lib/apache2/modules", passphrase=secrets.token_urlsafe(32),
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "")
        return self.sut(
            stack, ["apache2", "-DFOREGROUND", "-f", str(config)], tls, path="/private/orders", authenticates=True,
            login=("/private/orders", "mod_auth_openidc_session"))

    def open_route(self, stack, tls, _http2):
        return self.start_cloakroom(stack, tls, MEMORY)

    def memory(self, stack, tls, _http2):
        return self.start_cloakroom(stack, tls, MEMORY, private=True)

    def in_redis(self, stack, tls, _http2):
        return self.start_cloakroom(stack, tls, self.redis_store(), private=True)

    def in_redis_uncached(self, stack, tls, _http2):
        return self.start_cloakroom(stack, tls, "cache: off\n  " + self.redis_store(), private=True)

    def redis_store(self):
        return f'keys: [ "{self.key}" ]\n  store: {{ redis: {{ url: "redis://127.0.0.1:{self.redis_port}/0" }} }}'

    def start_cloakroom(self, stack, tls, session, private=False, wrapper=()):
        scheme = "https" if tls else "http"
        config = write(
            self.run, "cloakroom.yaml", origin=f"{scheme}://127.0.0.1:{self.port}", port=self.port, admin=self.admin, issuer=self.issuer,
            upstream=self.upstream_port, session=session,
            tls=f"tls: {{ cert: {self.certificate}, key: {self.certificate_key} }}" if tls else "")
        command = [*wrapper, str(self.cloakroom), "run", "--config", str(config)]
        ready = f"http://127.0.0.1:{self.admin}/readyz"
        if not private:
            return self.sut(stack, command, tls, ready=ready)
        return self.sut(
            stack, command, tls, ready=ready, path="/private/orders", authenticates=True, login=("/bff/login?return_to=/", SESSION))

    def sut(self, stack, command, tls, ready=None, login=None, **how):
        """Starts it, waits until it is ready, signs in where that is wanted, and tries it once."""
        process = stack.enter_context(Process(Path(command[0]).name, command, SUT_CORE, self.run))
        process.wait_for_port(self.port)
        if ready:
            process.wait_for(lambda: get(ready, {})[0] == 200, f"answer 200 at {ready}")
        origin = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        if login:
            path, cookie = login
            how["cookie"] = f"{cookie}={sign_in(origin + path, cookie)}"
        return Sut(process, origin, self.upstream, **how)
