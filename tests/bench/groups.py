"""What is measured: groups of rows that are compared with each other, each with its way of being asked."""

from collections.abc import Callable
from dataclasses import dataclass

import callgrind
import idle
import load
from load import CLOSED_LOOP, H2LOAD, WRK, Load
from rig import Rig, Way

# Requests per second of a megabyte each: a hundred megabytes per second.
BIG_RATE = 100


@dataclass(frozen=True)
class Row:
    name: str
    recipe: Callable
    # Whether Redis works for it.
    redis: bool = False


@dataclass(frozen=True)
class Group:
    title: str
    rows: dict
    way: Way = Way()
    load: Load = WRK
    # Requests per second for the latencies: 0 is what the command line says; with None there are none.
    rate: int | None = None
    # How each row is measured by itself. Not said: all rows stand side by side, and are loaded in turn.
    alone: Callable | None = None
    # Whether once is enough, for what repeats to the percent.
    once: bool = False
    # The name that it has in common with the group after it, beside which it stands.
    beside: str | None = None

    def start(self, rig, stack, row):
        """A fresh process, and a warm-up."""
        sut = row.recipe(rig, stack, self.way)
        load.saturate(rig, sut, self.load, 1)
        return sut

    def turn(self, rig, sut, row, chosen):
        """A load as high as goes."""
        return load.saturate(rig, sut, self.load, chosen.seconds, row.redis)

    def latencies(self, rig, sut, chosen):
        """A load at a fixed rate, where there is one: longer than a turn, so that the first requests are few."""
        return {} if self.rate is None else load.fixed_rate(rig, sut, chosen.rate_seconds, self.rate or chosen.rate)


ROWS = {
    "upstream": Row("upstream alone", Rig.alone),
    "nginx": Row("nginx, plain proxy", Rig.nginx),
    "unbuffered": Row("nginx, `proxy_request_buffering off`", Rig.nginx_unbuffered),
    "haproxy": Row("haproxy, plain proxy", Rig.haproxy),
    "apache": Row("apache + mod_auth_openidc, Redis", Rig.apache, redis=True),
    "open": Row("cloakroom, open route", Rig.open_route),
    "memory": Row("cloakroom, session in memory", Rig.memory),
    "redis": Row("cloakroom, session in Redis", Rig.in_redis, redis=True),
    "uncached": Row("cloakroom, session in Redis, `cache: off`", Rig.in_redis_uncached, redis=True),
}
FILES = {"nginx": Row("nginx, files", Rig.nginx_files), "files": Row("cloakroom, files", Rig.static_files)}


def some(*names):
    return {name: ROWS[name] for name in names}


PROXIES = some("nginx", "haproxy", "open", "redis")
FOUR = some("nginx", "open", "memory", "redis")
# nginx is the base of a group's ratios.
GROUPS = {
    "h1": Group("HTTP/1.1", some("upstream", "nginx", "haproxy", "apache", "open", "memory", "redis", "uncached"), rate=0),
    "h2c": Group("HTTP/2, clear", FOUR, Way(http2=True), H2LOAD, rate=0),
    "tls": Group("TLS, HTTP/1.1", FOUR, Way(tls=True), rate=0),
    "h2": Group("TLS, HTTP/2", FOUR, Way(tls=True, http2=True), H2LOAD, rate=0),
    "big": Group("HTTP/1.1, answers of 1 MB", PROXIES, Way(what="big"), CLOSED_LOOP, BIG_RATE),
    "bigh2": Group("TLS, HTTP/2, answers of 1 MB", some("nginx", "redis"), Way(tls=True, http2=True, what="big"), CLOSED_LOOP, BIG_RATE),
    "upload": Group(
        "HTTP/1.1, uploads of 1 MB", some("nginx", "unbuffered", "haproxy", "open", "redis"), Way(what="upload"), CLOSED_LOOP, BIG_RATE),
    "socket": Group("WebSocket, messages of 1 KB there and back", PROXIES, Way(what="socket"), Load("closed_loop", 64)),
    "file": Group("static file, 1 KB", FILES),
    "bigfile": Group("static file, 1 MB", FILES, Way(what="big"), CLOSED_LOOP),
    "busy": Group("HTTP/1.1, 256 connections", some("nginx", "haproxy", "redis"), load=Load("wrk", 256)),
    "one": Group("everything on one core", some("nginx", "redis"), Way(cores=1), beside="cores"),
    "two": Group("everything on two cores", some("nginx", "redis"), Way(cores=2), beside="cores"),
    "idle": Group("in clear", some("nginx", "open"), Way(crowd=True), alone=idle.measure),
    "idletls": Group("TLS", some("nginx", "open"), Way(tls=True, crowd=True), alone=idle.measure),
    "instructions": Group("instructions", some("redis"), alone=callgrind.measure, once=True),
}
