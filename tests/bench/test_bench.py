"""The benchmark's own tests: tests/run runs them."""

import os
import sys
import tempfile
import time
import unittest

import callgrind
import load
import table
from processes import Process, Trouble, free_ports, stat

WRK = """Running 4s test @ http://127.0.0.1:15004/private/orders
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.04ms  452.00us  12.93ms   91.12%
    Req/Sec    61.44k     2.21k   64.15k    70.00%
  245321 requests in 4.01s, 306.70MB read
"""
H2LOAD = """finished in 2.02s, 13942.00 req/s, 16.33MB/s
requests: 27884 total, 28012 started, 27884 done, 27884 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 27884 2xx, 0 3xx, 0 4xx, 0 5xx
"""
CALLGRIND = """positions: line
events: Ir
summary: 160

fn=(1) main
16 10
cfn=(2) route::h0123456789abcdef
calls=2 40
+3 150
* 5

fn=(2)
40 100
cfn=(3) route::h0123456789abcdef'2
calls=1 40
-2 40
fi=(9) other.rs
+1 5
fn=(3)
40 40
totals: 160
"""


class Loads(unittest.TestCase):
    def test_wrk_is_read(self):
        self.assertEqual(load.read_wrk(WRK), (245321, 4.01, 0))

    def test_errors_that_wrk_saw_count(self):
        errors = "  Socket errors: connect 1, read 2, write 3, timeout 4\n  Non-2xx or 3xx responses: 7\n"
        self.assertEqual(load.read_wrk(WRK + errors), (245321, 4.01, 17))

    def test_h2load_is_read(self):
        self.assertEqual(load.read_h2load(H2LOAD), (27884, 2.02, 0))

    def test_what_h2load_saw_beside_2xx_counts(self):
        self.assertEqual(load.read_h2load(H2LOAD.replace("27884 2xx, 0 3xx", "27880 2xx, 4 3xx"))[2], 4)
        self.assertEqual(load.read_h2load(H2LOAD.replace("27884 succeeded, 0", "27881 succeeded, 3"))[2], 3)

    def test_output_that_is_not_understood_is_said(self):
        self.assertRaises(Trouble, load.read_wrk, "unable to connect to 127.0.0.1:15004 Connection refused")
        self.assertRaises(Trouble, load.read_h2load, H2LOAD.splitlines()[0])

    def test_a_row_with_wrong_answers_or_none_is_no_row(self):
        load.judge(100, 0, 164, 64)
        for wrong in [(0, 0, 0, 64), (100, 1, 100, 64)]:
            self.assertRaises(Trouble, load.judge, *wrong)

    def test_answers_that_never_came_from_the_upstream_are_found_out(self):
        self.assertRaisesRegex(Trouble, "99 reached", load.judge, 100, 0, 99, 64)
        self.assertRaisesRegex(Trouble, "165 reached", load.judge, 100, 0, 165, 64)


class Tables(unittest.TestCase):
    def test_ratios_are_taken_inside_the_rounds(self):
        rounds, base = [{"x": 10}, {"x": 30}, {"x": 24}], [{"x": 5}, {"x": 20}, {"x": 10}]
        self.assertEqual(table.ratio(rounds, base, "x"), "2.00")
        self.assertEqual(table.ratio(rounds, [], "x"), "–")

    def test_the_spread_is_that_of_the_rounds(self):
        self.assertEqual(table.spread([10, 12, 9]), 0.3)

    def test_an_invalid_row_shows_and_is_nobodys_base(self):
        row = {"requests": 1, "answered": 1, "cpu_us": 2, "user_us": 1, "system_us": 1, "per_second": 1, "core": 1, "redis_us": 0,
               "kept_up": True, "p50_us": 1, "p99_us": 1, "pss": 1}
        results = {("h1", "nginx"): [row], ("h1", "open"): [row]}
        write = lambda invalid: table.write({"h1": "HTTP/1.1"}, {"nginx": "nginx", "open": "open"}, results, invalid)
        self.assertIn("| open | 2 | **2.0** | 1.0 / 1.0 | 0% | 1.00 |", write({}))
        broken = write({("h1", "nginx"): "it fell over"})
        self.assertIn("| nginx | **INVALID** |", broken)
        self.assertIn("INVALID nginx/h1: it fell over", broken)
        self.assertIn("| open | 2 | **2.0** | 1.0 / 1.0 | 0% | – |", broken)
        self.assertEqual({line.count("|") for line in broken.splitlines() if line.startswith("|")}, {table.COLUMNS + 1})


class Profiles(unittest.TestCase):
    def test_each_functions_own_cost_is_read(self):
        self.assertEqual(callgrind.read(CALLGRIND), {"main": 15, "route": 145})

    def test_a_file_that_does_not_add_up_is_refused(self):
        self.assertRaisesRegex(Trouble, "not understood", callgrind.read, CALLGRIND.replace("totals: 160", "totals: 161"))


class Processes(unittest.TestCase):
    def start(self, code):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        return self.enterContext(Process("part", [sys.executable, "-c", code], min(os.sched_getaffinity(0)), folder, ready_line=True))

    def test_the_time_of_children_counts_when_they_have_ended_and_when_their_parent_has(self):
        burn = "import os, time\nwhile sum(os.times()[:2]) < 0.3: pass\n"
        part = self.start(f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {burn!r}])\nprint('burnt', flush=True)\nsys.stdin.read()")
        self.assertGreater(sum(part.cpu()), 0.28)
        orphan = f"{burn}print('burnt', flush=True)\ntime.sleep(60)"
        part = self.start(f"import os, sys\nif os.fork():\n os._exit(0)\nelse:\n exec({orphan!r})")
        self.assertGreater(sum(part.cpu()), 0.28)

    def test_stopping_ends_orphans_and_those_who_will_not_listen(self):
        part = self.start(
            "import os, signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nos.fork()\nos.fork()\nprint('up', flush=True)\ntime.sleep(60)")
        for _ in range(3):
            part.child.stdout.readline()
        pids = part.all()
        self.assertEqual(len(pids), 4)
        part.stop(0.2)
        end = time.monotonic() + 5
        while (left := [pid for pid in pids if stat(pid)[:1] not in ([], ["Z"])]) and time.monotonic() < end:
            time.sleep(0.01)
        self.assertEqual(left, [])

    def test_memory_is_that_of_all_of_them(self):
        part = self.start("import os, time\nif os.fork() == 0:\n held = os.urandom(30_000_000)\n print('up', flush=True)\ntime.sleep(60)")
        self.assertGreater(part.pss(), 30_000_000)

    def test_ports_are_none_that_connections_take(self):
        with open("/proc/sys/net/ipv4/ip_local_port_range") as limits:
            lowest = int(limits.read().split()[0])
        self.assertTrue(all(1024 < port < lowest for port in free_ports(50)))


if __name__ == "__main__":
    unittest.main()
