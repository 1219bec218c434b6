"""What stands around the systems under test (upstream, Redis, provider, on core 1), and how each of these starts on core 0."""

import contextlib
import json
import os
import random
import resource
import secrets
import shutil
import signal
import string
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from login import get, sign_in
from processes import Process, Trouble, free_ports

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SUT_CORE, OTHER_CORE = 0, 1
ALLOWED = os.sched_getaffinity(0)
EXAMPLES = ROOT / "target/release/examples"
BODY_LENGTH = 1155
BODY = json.dumps({"orders": [{"id": n, "state": "shipped", "total": 4200 + n} for n in range(24)], "more": ""}).encode()
BODY = BODY.replace(b'""', b'"%s"' % (b"x" * (BODY_LENGTH - len(BODY))))
# Of every byte the same number would hide what has been lost or sent twice.
BIG = random.Random(1).randbytes(1 << 20)
# What can be asked for, and the answer to it: the two files, an upload of the big one, a WebSocket.
ANSWERS = {"orders": BODY, "big": BIG, "upload": b"1048576 bytes came", "socket": None}
SESSION = "__Host-Http-cloakroom"
# How many systems under test can stand side by side.
PLACES = 8
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
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for all that it starts, too


@dataclass(frozen=True)
class Way:
    """How the load comes, what it asks for, and where all run."""

    tls: bool = False
    http2: bool = False
    what: str = "orders"
    # On how many cores the system under test runs. Not said: on one that it has to itself.
    cores: int | None = None
    # Whether thousands of connections come, for which nginx needs a table that would count as memory elsewhere.
    crowd: bool = False

    @property
    def answer(self):
        return ANSWERS[self.what]

    @property
    def scheme(self):
        return "https" if self.tls else "http"

    def places(self):
        """The cores of the system under test, and those of all the others."""
        if not self.cores:
            return {SUT_CORE}, {OTHER_CORE}
        own = set(range(self.cores))
        # With two cores there is no other way: the load is generated on the same ones, however many these are.
        return own, ({2, 3} if {2, 3} <= ALLOWED else own)


class Template(string.Template):
    delimiter = "@"  # nginx has the dollar


def write(folder, name, **values):
    """A config of conf/ with its values, in the run's folder."""
    path = folder / name
    path.write_text(Template((HERE / "conf" / name).read_text()).substitute(values))
    return path


class Sut:
    """A system under test that serves: its process, where and how it is asked, and which upstream answers; none if it does so itself."""

    def __init__(self, process, way, url, upstream, cookie=None, authenticates=False, try_it=True):
        self.process, self.way, self.url, self.upstream = process, way, url, upstream
        self.headers = {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty", "Accept": "*/*"}
        if way.what == "socket":
            self.headers |= {"Origin": url.partition("/open/")[0].partition("/private/")[0], "Sec-Fetch-Mode": "websocket", "Sec-Fetch-Dest": "websocket"}
        if authenticates:
            status, *_ = get(self.url, self.headers)
            if status not in (302, 401):
                raise Trouble(f"{process.name} answers {status} without a session")
        if cookie:
            self.headers["Cookie"] = cookie
        if try_it and way.answer is not None:
            status, _, body = get(self.url, self.headers, BIG if way.what == "upload" else None)
            if (status, body) != (200, way.answer):
                raise Trouble(f"{process.name} answers {status} {body[:300]!r}: {process.written()}")
        self.its_turn()

    def its_turn(self):
        """From now on it is asked alone: what has reached its upstream until now has come from others."""
        self.seen = self.upstream.count() if self.upstream else 0
        return self

    def settle(self):
        """Waits until those requests are over that a load has left, and says how many have reached the upstream since the last time; None if there is no upstream."""
        if not self.upstream:
            return None
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
    """nginx with the answers. It counts the requests that reach it."""

    def __init__(self, process, port):
        self.process, self.port, self.asked = process, port, 0
        process.wait_for_port(port)

    def count(self):
        """Without those that ask for the count."""
        _, _, page = get(f"http://127.0.0.1:{self.port}/count", {})
        self.asked += 1
        return int(page.split()[9]) - self.asked


class Receiver(Upstream):
    """receiver.rs, which takes uploads and says WebSocket messages back. It counts those that were what they should be."""

    def count(self):
        return int(get(f"http://127.0.0.1:{self.port}/count", {})[2])


class Rig(contextlib.ExitStack):
    """Everything on core 1, and the recipes for core 0. Leaving it ends all."""

    def __init__(self, folder, cloakroom):
        super().__init__()
        self.folder, self.cloakroom = folder, cloakroom
        folder.chmod(0o755)  # nginx' and apache's workers are another user
        self.files = folder / "files"
        self.files.mkdir()
        for name, answer in ANSWERS.items():
            if answer is not None:
                (self.files / name).write_bytes(answer)
        self.redis_port, self.upstream_port, self.other_upstream_port, self.receiver_port, self.h2c_port, self.other_h2c_port, self.forward_auth_port, *ports = (
            free_ports(7 + 2 * PLACES))
        self.places = list(zip(ports[::2], ports[1::2]))
        self.take_place(0)
        self.key = secrets.token_urlsafe(32)
        self.certificate, self.certificate_key = folder / "tls.crt", folder / "tls.key"

    def take_place(self, number):
        """Where the next system under test stands: ports that the provider knows, and a folder. So several can stand side by side."""
        self.port, self.admin = self.places[number]
        self.run = self.folder / str(number)
        (self.run / "tmp").mkdir(parents=True, exist_ok=True)

    def begin(self, with_receiver=True):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=benchmark", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", self.certificate_key, "-out", self.certificate],
            check=True, capture_output=True)
        self.upstream = self.start_upstream(self, "upstream", self.upstream_port, self.h2c_port, OTHER_CORE)
        self.receiver = Receiver(self.enter_context(Process(
            "receiver", [str(EXAMPLES / "receiver"), "--port", str(self.receiver_port), "--upload", str(self.files / "big"),
                         "--answer", str(self.files / "upload")], {OTHER_CORE}, self.run)), self.receiver_port) if with_receiver else None
        self.redis = self.enter_context(Process(
            "redis", ["redis-server", "--port", str(self.redis_port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no",
                      "--dir", str(self.run)], {OTHER_CORE}, self.run))
        self.redis.wait_for_port(self.redis_port)
        clients = [
            {"client_id": "cloakroom", "redirect_uris": [f"{scheme}://127.0.0.1:{port}/bff/callback" for scheme in ("http", "https") for port, _ in self.places]},
            {"client_id": "apache", "redirect_uris": [f"http://127.0.0.1:{port}/private/callback" for port, _ in self.places]},
        ]
        # Tokens that outlive the run: a refresh in the middle is not what is measured.
        config = {"issuer_host": "127.0.0.1", "login": "auto", "token_format": "jwt", "access_token_ttl": 36000,
                  "clients": [client | {"client_secret": "secret"} for client in clients]}
        provider = self.enter_context(Process(
            "provider", ["node", str(ROOT / "tests/provider/provider.mjs")], {OTHER_CORE}, self.run,
            env=os.environ | {"OP_CONFIG": json.dumps(config)}, ready_line=True))
        if not provider.ready_line:
            raise Trouble(f"the provider does not start: {provider.written()}")
        self.issuer = json.loads(provider.ready_line)["issuer"]

    def start_upstream(self, stack, name, port, h2c, core):
        (self.run / name).mkdir(exist_ok=True)
        config = write(self.run, "upstream.conf", port=port, h2c=h2c, body=BODY.decode(), files=self.files)
        config = config.rename(self.run / f"{name}.conf")
        return Upstream(stack.enter_context(Process(name, ["nginx", "-e", "stderr", "-p", str(self.run / name), "-c", str(config)], {core}, self.run)), port)

    def upstream_of(self, way):
        return self.receiver if way.what in ("upload", "socket") else self.upstream

    @contextlib.contextmanager
    def arranged(self, way):
        """While it lasts all the others are where this way wants them."""
        before, place = os.sched_getaffinity(0), way.places()[1]
        try:
            self.move(place)
            yield
        finally:
            self.move(before)

    def move(self, place):
        os.sched_setaffinity(0, place)
        for process in (self.upstream.process, self.redis):
            process.move(place)

    @contextlib.contextmanager
    def other_ports(self):
        """For a system under test that stays for longer than its row."""
        before = self.port, self.admin
        self.port, self.admin = free_ports(2)
        try:
            yield
        finally:
            self.port, self.admin = before

    # --- the systems under test: each a function of the stack that ends it, and of the way in which it is asked

    def alone(self, stack, way):
        upstream = self.start_upstream(stack, "upstream-alone", self.other_upstream_port, self.other_h2c_port, SUT_CORE)
        return Sut(upstream.process, way, f"http://127.0.0.1:{upstream.port}/open/{way.what}", upstream)

    def nginx(self, stack, way, prefix="/open/", proxy=""):
        tls = f"ssl_certificate {self.certificate}; ssl_certificate_key {self.certificate_key}; ssl_protocols TLSv1.2 TLSv1.3;"
        workers = way.cores or 1
        listen = (" ssl" if way.tls else "") + (" http2" if way.http2 else "") + (" reuseport" if workers > 1 else "")
        config = write(
            self.run, "nginx.conf", port=self.port, upstream=self.upstream_of(way).port, listen=listen, tls=tls if way.tls else "", workers=workers,
            connections=16384 if way.crowd else 4096, files=self.files, proxy=proxy)
        # Without TLS a listener of nginx has either HTTP/1.1 or HTTP/2, which only the load generators speak.
        return self.sut(
            stack, ["nginx", "-e", "stderr", "-p", str(self.run), "-c", str(config)], way, prefix=prefix, try_it=way.tls or not way.http2)

    def nginx_unbuffered(self, stack, way):
        return self.nginx(stack, way, proxy="proxy_request_buffering off;")

    def nginx_files(self, stack, way):
        return self.nginx(stack, way, prefix="/files/")

    def haproxy(self, stack, way):
        config = write(self.run, "haproxy.cfg", port=self.port, upstream=self.upstream_of(way).port)
        return self.sut(stack, ["haproxy", "-db", "-f", str(config)], way)

    def apache(self, stack, way):
        config = write(
            self.run, "apache.conf", run=self.run, port=self.port, upstream=self.upstream_of(way).port, redis=self.redis_port, issuer=self.issuer,
            modules="/usr/lib/apache2/modules", passphrase=secrets.token_urlsafe(32),
            user="User www-data\nGroup www-data" if os.geteuid() == 0 else "")
        return self.sut(
            stack, ["apache2", "-DFOREGROUND", "-f", str(config)], way, prefix="/private/", authenticates=True,
            login=("/private/orders", "mod_auth_openidc_session"))

    def open_route(self, stack, way):
        return self.start_cloakroom(stack, way, MEMORY)

    def static_files(self, stack, way):
        return self.start_cloakroom(stack, way, MEMORY, prefix="/files/")

    def memory(self, stack, way):
        return self.start_cloakroom(stack, way, MEMORY, prefix="/private/")

    def in_redis(self, stack, way):
        return self.start_cloakroom(stack, way, self.redis_store(), prefix="/private/")

    def in_redis_uncached(self, stack, way):
        return self.start_cloakroom(stack, way, "cache: off\n  " + self.redis_store(), prefix="/private/")

    def over_h2c(self, stack, way):
        return self.start_cloakroom(stack, way, self.redis_store(), prefix="/private/", upstream=self.h2c_port, protocol="h2c")

    def forward_auth(self, stack, way):
        """An ingress that asks: whoever asks is trusted, and no upstream has a part in it."""
        server = f"forward_auth: 127.0.0.1:{self.forward_auth_port}\n  trusted_proxies: [127.0.0.1]"
        browser = self.start_cloakroom(stack, way, self.redis_store(), prefix="/private/", server=server)
        sut = Sut(browser.process, way, f"http://127.0.0.1:{self.forward_auth_port}/", None, try_it=False)
        scheme, _, rest = browser.url.partition("://")
        host, _, target = rest.partition("/")
        sut.headers = browser.headers | {
            "X-Forwarded-Method": "GET", "X-Forwarded-Proto": scheme, "X-Forwarded-Host": host, "X-Forwarded-Uri": f"/{target}", "X-Forwarded-For": "127.0.0.1"}
        return sut

    def redis_store(self):
        return f'keys: [ "{self.key}" ]\n  store: {{ redis: {{ url: "redis://127.0.0.1:{self.redis_port}/0" }} }}'

    def start_cloakroom(self, stack, way, session, prefix="/open/", wrapper=(), server="", upstream=None, protocol="auto"):
        config = write(
            self.run, "cloakroom.yaml", origin=f"{way.scheme}://127.0.0.1:{self.port}", port=self.port, admin=self.admin, issuer=self.issuer,
            upstream=upstream or self.upstream_of(way).port, protocol=protocol, session=session, files=self.files,
            server=f"tls: {{ cert: {self.certificate}, key: {self.certificate_key} }}" if way.tls else server)
        # A copy of its own: several that stand side by side would share their code's memory, and PSS divides that.
        binary = self.run / "cloakroom"
        binary.unlink(missing_ok=True)
        shutil.copy2(self.cloakroom, binary)
        how = {"authenticates": True, "login": ("/bff/login?return_to=/", SESSION)} if prefix == "/private/" else {}
        return self.sut(
            stack, [*wrapper, str(binary), "run", "--config", str(config)], way, prefix=prefix,
            ready=f"http://127.0.0.1:{self.admin}/readyz", **how)

    def sut(self, stack, command, way, prefix="/open/", ready=None, login=None, **how):
        """Starts it, waits until it is ready, signs in where that is wanted, and tries it once."""
        process = stack.enter_context(Process(Path(command[0]).name, command, way.places()[0], self.run))
        process.wait_for_port(self.port)
        if ready:
            process.wait_for(lambda: get(ready, {})[0] == 200, f"answer 200 at {ready}")
        origin = f"{way.scheme}://127.0.0.1:{self.port}"
        if login:
            path, cookie = login
            how["cookie"] = f"{cookie}={sign_in(origin + path, cookie)}"
        return Sut(process, way, origin + prefix + way.what, None if prefix == "/files/" else self.upstream_of(way), **how)
