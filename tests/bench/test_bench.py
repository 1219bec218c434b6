"""The benchmark's own tests: tests/run runs them."""

import collections
import contextlib
import io
import os
import socket
import sys
import tempfile
import threading
import time
import types
import unittest
import unittest.mock

import bench
import callgrind
import idle
import load
import readme
import table
import targets
from groups import GROUPS
from processes import Process, Trouble, free_ports, stat
from rig import PLACES

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

    def test_what_the_own_generator_compared_counts(self):
        said = '{"answered":746,"wrong":1,"failed":2,"seconds":1.5}'
        self.assertEqual(load.read_own(said), (746, 1.5, 3))

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
        self.assertRaisesRegex(Trouble, "101 reached", load.judge, 100, 0, 101, 0)
        load.judge(100, 0, None, 0)  # files, for which there is no upstream


ROW = {"requests": 1, "answered": 1, "cpu_us": 2, "user_us": 1, "system_us": 1, "per_second": 1, "core": 1, "redis_us": 0,
       "kept_up": True, "p50_us": 1, "p99_us": 1, "pss": 1}


class Tables(unittest.TestCase):
    def test_ratios_are_taken_inside_the_rounds(self):
        rounds, base = [{"x": 10}, {"x": 30}, {"x": 24}], [{"x": 5}, {"x": 20}, {"x": 10}]
        self.assertEqual(table.ratio(rounds, base, "x"), 2)
        self.assertEqual(table.ratio(rounds, [], "x"), None)

    def test_the_spread_is_that_of_the_middle_half(self):
        self.assertEqual(table.spread([10, 12, 9, 11, 1000]), 2 / 11)
        self.assertEqual(table.spread([10]), 0)

    def test_an_invalid_row_shows_and_is_nobodys_base(self):
        results = {("h1", "nginx"): [ROW], ("h1", "open"): [ROW]}
        write = lambda invalid: table.write(GROUPS, results, invalid)
        self.assertIn("| cloakroom, open route | 2 | **2.0** | 1.0 / 1.0 | 0% | 1.00 |", write({}))
        broken = write({("h1", "nginx"): "it fell over"})
        self.assertIn("| nginx, plain proxy | **INVALID** |", broken)
        self.assertIn("INVALID nginx/h1: it fell over", broken)
        self.assertIn("| cloakroom, open route | 2 | **2.0** | 1.0 / 1.0 | 0% | – |", broken)
        self.assertEqual({line.count("|") for line in broken.splitlines() if line.startswith("|")}, {len(table.HEAD) + 1})

    def test_the_readmes_table_has_the_same_rows(self):
        results = {("h1", "nginx"): [ROW], ("h1", "open"): [ROW | {"cpu_us": 3}], ("h1", "redis"): [ROW | {"cpu_us": 1}]}
        short = table.short(GROUPS, results)
        self.assertIn("beyond 8 %):** HTTP/1.1: open route (1.50).", short)
        self.assertIn("Less:** HTTP/1.1: session in Redis (0.50).", short)
        self.assertIn("| cloakroom, open route | **3.0** | 1.50 | 1 | 1 | 1 | 1.00 / 1.00 | 0.0 |", short)

    def test_latencies_are_those_of_the_turns_that_have_them(self):
        without = {key: value for key, value in ROW.items() if key not in ("kept_up", "p50_us", "p99_us")}
        results = {("h1", "nginx"): [without, ROW], ("h1", "redis"): [without, ROW | {"p50_us": 3, "p99_us": 4}]}
        self.assertIn("| 3 | 4 | 3.00 / 4.00 |", table.write(GROUPS, results, {}))
        target = next(target for target in targets.TARGETS if target.key == "p50_us")
        self.assertEqual(targets.figure(target, results, {}), 3)

    def test_who_was_late_has_no_latencies_and_lends_none(self):
        results = {("h1", "nginx"): [ROW | {"kept_up": False}], ("h1", "open"): [ROW]}
        written = table.write(GROUPS, results, {})
        self.assertIn("| late | late | – |", written)
        self.assertIn("| 1 | 1 | – / – |", written)

    def test_idle_connections_have_a_table_of_their_own(self):
        waited = {"before": 2e6, "idle": 2048, "crowd": 5000, "gone": 3e6, "gone_ratio": 1.5}
        tls = {"before": 2e6, "idle": 4096, "crowd": 5000}
        written = table.write(GROUPS, {("idle", "open"): [waited], ("idletls", "open"): [tls]}, {})
        self.assertIn("| cloakroom, open route, in clear | 2.0 | **2.0** | 10000 | 3.0 | 1.50 |", written)
        self.assertIn("| cloakroom, open route, TLS | 2.0 | **4.0** | – | – | – |", written)
        self.assertNotIn("CPU", written)


class Targets(unittest.TestCase):
    def written(self, results, invalid=None):
        return {line.split(" | ")[1]: line.split(" | ")[2:] for line in targets.write(results, invalid or {}).splitlines()[2:]}

    def test_each_speaks_of_rows_that_are_measured(self):
        cases = {case for target in targets.TARGETS for case in (target.case, target.base) if case}
        self.assertEqual({case for case in cases if case[1] not in GROUPS[case[0]].rows}, set())
        side_by_side = collections.Counter()
        for name, group in GROUPS.items():
            side_by_side[group.beside or name] += len(group.rows)
        self.assertLessEqual(max(side_by_side.values()), PLACES)
        self.assertEqual({target.number for target in targets.TARGETS}, set(range(1, 14)))
        for target in targets.TARGETS:
            self.assertEqual(target.goal > target.gate, target.more, target)

    def test_figures_are_ratios_inside_the_rounds_and_judged(self):
        rounds = lambda *cpu: [ROW | {"cpu_us": each} for each in cpu]
        base = {("h1", "nginx"): rounds(10, 20, 10)}
        for cpu, shown, met in [((11, 24, 11), "1.10", "goal |"), ((13, 24, 14), "1.30", "gate |"), ((15, 24, 15), "1.50", "**missed** |")]:
            found = self.written(base | {("h1", "redis"): rounds(*cpu)})
            self.assertEqual(found["CPU per request, session cached ÷ nginx"], [shown, "≤ 1.45", "≤ 1.15", met])

    def test_where_more_is_better_less_misses(self):
        results = lambda two: {("one", "redis"): [ROW | {"per_second": 100}], ("two", "redis"): [ROW | {"per_second": two}]}
        for two, met in [(190, "goal |"), (180, "gate |"), (160, "**missed** |")]:
            self.assertEqual(self.written(results(two))["requests/s, everything on two cores ÷ on one"][3], met)

    def test_what_is_invalid_late_or_missing_is_not_measured(self):
        results = {("h1", "nginx"): [ROW], ("h1", "redis"): [ROW | {"kept_up": False}]}
        found = self.written(results)
        self.assertEqual(found["p50 at a fixed rate, session cached ÷ nginx"][0], "–")
        self.assertEqual(found["CPU per request, session cached ÷ nginx"][0], "1.00")
        self.assertEqual(found["KB per idle connection, TLS"][3], "not measured |")
        found = self.written(results, {("h1", "nginx"): "it fell over"})
        self.assertEqual(found["CPU per request, session cached ÷ nginx"][3], "not measured |")

    def test_memory_is_in_kilobytes(self):
        self.assertEqual(self.written({("idle", "open"): [{"idle": 5 * 1024, "gone_ratio": 3}]})["KB per idle connection, in clear"][0], "5.0")


class Readme(unittest.TestCase):
    def test_only_what_stands_between_the_marks_is_written(self):
        text = f"before\n{readme.BEGIN}old\n{readme.END}after\n"
        new = readme.between_marks(text, "new")
        self.assertEqual(new, f"before\n{readme.BEGIN}\nnew\n\n{readme.END}after\n")
        self.assertEqual(readme.between_marks(new, "new"), new)

    def test_a_mark_that_is_missing_or_doubled_is_said(self):
        for text in ["", readme.BEGIN, readme.END + readme.BEGIN, readme.BEGIN * 2 + readme.END]:
            self.assertRaises(Trouble, readme.between_marks, text, "new")

    def test_every_group_is_explained(self):
        page = (readme.ROOT / "tests/bench/README.md").read_text()
        self.assertEqual([group for group in GROUPS if f"`{group}`" not in page], [])

    def test_the_readme_has_the_marks(self):
        readme.between_marks((readme.ROOT / "README.md").read_text(), "new")


class Arguments(unittest.TestCase):
    def test_only_takes_rows_and_groups(self):
        self.assertEqual(bench.arguments(["--only", "open/big", "/one"]).cases, [("big", "open"), ("one", "nginx"), ("one", "redis")])
        self.assertIn(("idletls", "nginx"), bench.arguments(["--only", "nginx"]).cases)

    def test_what_is_no_row_and_a_readme_of_half_a_run_are_refused(self):
        for words in [["--only", "nothing"], ["--only", "files/h1"], ["--readme", "--quick"], ["--readme", "--only", "nginx"]]:
            with self.assertRaises(SystemExit), contextlib.redirect_stderr(io.StringIO()):
                bench.arguments(words)


class Crowds(unittest.TestCase):
    def crowd(self, answer, then=b""):
        """One connection to a server that answers so, and says something more when it likes."""
        listener = self.enterContext(socket.create_server(("127.0.0.1", 0)))

        def serve():
            with contextlib.suppress(OSError), listener.accept()[0] as connection:
                connection.recv(65536)
                connection.sendall(answer)
                if then is not None:
                    connection.sendall(then)
                    connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        self.addCleanup(thread.join)
        sut = types.SimpleNamespace(url=f"http://127.0.0.1:{listener.getsockname()[1]}/x", way=types.SimpleNamespace(answer=b"{}"))
        return self.enterContext(idle.Crowd(sut)), thread

    def test_who_answers_well_and_then_is_silent_waits(self):
        crowd, _ = self.crowd(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        crowd.grow(1)
        crowd.check()

    def test_wrong_answers_are_found_out(self):
        for answer in [b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\n{}", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{"]:
            crowd, _ = self.crowd(answer, then=None)
            self.assertRaisesRegex(Trouble, "was answered", crowd.grow, 1)

    def test_a_connection_that_was_closed_meanwhile_does_not_count_as_idle(self):
        crowd, server = self.crowd(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", then=None)
        crowd.grow(1)
        server.join()
        self.assertRaisesRegex(Trouble, "was closed", crowd.check)


class Runs(unittest.TestCase):
    """Of rows that are made up."""

    def run_of(self, rows=("open",), turns=1, **about):
        group = types.SimpleNamespace(**{
            "way": None, "once": False, "beside": None, "alone": None, "rows": {row: row for row in rows}, "latencies": self.latencies} | about)
        rig = contextlib.ExitStack()
        rig.arranged = lambda _way: contextlib.nullcontext()
        rig.take_place = self.places.append
        self.enterContext(rig)
        self.enterContext(unittest.mock.patch.dict(bench.GROUPS, {"h1": group}))
        run = bench.Run(rig, types.SimpleNamespace(rounds=2, turns=turns, cases=[("h1", row) for row in rows]))
        with contextlib.redirect_stderr(io.StringIO()):
            run.all()
        return run

    def setUp(self):
        self.places, self.events = [], []

    def sut(self, _rig, stack, row):
        """Made up, too: it says when it begins and ends."""
        self.events.append(f"{row} starts")
        stack.callback(self.events.append, f"{row} ends")
        sut = types.SimpleNamespace(row=row)
        sut.its_turn = lambda: sut
        return sut

    def turn(self, _rig, sut, row, _chosen):
        assert sut.row == row
        self.events.append(row)
        return {"x": len(self.events)}

    def latencies(self, _rig, sut, _chosen):
        self.events.append(f"{sut.row}'s latencies")
        return {"p50_us": 1}

    def test_rows_stand_side_by_side_and_are_loaded_to_and_fro(self):
        run = self.run_of(("nginx", "open"), 3, start=self.sut, turn=self.turn)
        turns = "nginx starts, open starts, nginx, open, open, nginx, nginx, open, nginx's latencies, open's latencies"
        a_round = f"{turns}, open ends, nginx ends".split(", ")
        self.assertEqual(self.events, a_round * 2)
        self.assertEqual(self.places, [0, 1, 0, 1])
        self.assertEqual({case: len(found) for case, found in run.results.items()}, {("h1", "nginx"): 6, ("h1", "open"): 6})
        self.assertEqual(["p50_us" in one for one in run.results["h1", "open"]], [False, False, True] * 2)

    def test_trouble_of_one_row_is_not_that_of_the_others(self):
        def turn(rig, sut, row, chosen):
            if row == "open":
                raise Trouble("it fell over")
            return self.turn(rig, sut, row, chosen)

        def start(rig, stack, row):
            if row == "redis":
                raise OSError("it does not start")
            return self.sut(rig, stack, row)

        run = self.run_of(("nginx", "open", "redis"), 2, start=start, turn=turn)
        self.assertEqual(run.invalid, {("h1", "open"): "it fell over", ("h1", "redis"): "it does not start"})
        self.assertEqual(len(run.results["h1", "nginx"]), 4)
        self.assertEqual(self.events.count("open starts"), 1)
        self.assertEqual(self.events[:5], ["nginx starts", "open starts", "nginx", "open ends", "nginx"])

    def test_groups_that_are_beside_each_other_take_turns(self):
        groups = {name: types.SimpleNamespace(
            way=None, alone=None, beside="cores", rows={"redis": name}, start=self.sut, turn=self.turn, latencies=lambda *_: {}) for name in ("one", "two")}
        self.enterContext(unittest.mock.patch.dict(bench.GROUPS, groups))
        rig = types.SimpleNamespace(arranged=lambda _way: contextlib.nullcontext(), take_place=self.places.append)
        with contextlib.redirect_stderr(io.StringIO()):
            bench.Run(rig, types.SimpleNamespace(rounds=1, turns=2, cases=[("one", "redis"), ("two", "redis")])).all()
        self.assertEqual(self.events, ["one starts", "two starts", "one", "two", "two", "one", "two ends", "one ends"])

    def test_what_is_looked_at_later_lives_until_then(self):
        ended = []

        def alone(_rig, stack, *_):
            stack.callback(ended.append, True)
            begun, before = time.monotonic(), len(ended)
            return {"x": 1, "later": (0.2, lambda: {"ended": len(ended) - before, "after": time.monotonic() - begun})}

        found = self.run_of(alone=alone).results["h1", "open"]
        self.assertEqual([(one["x"], one["ended"]) for one in found], [(1, 0), (1, 0)])
        self.assertGreaterEqual(min(one["after"] for one in found), 0.2)
        self.assertEqual(len(ended), 2)

    def test_trouble_makes_a_row_invalid_and_ends_it_for_good(self):
        count = []

        def alone(*_):
            count.append(1)
            raise Trouble("it fell over")

        self.assertEqual(self.run_of(alone=alone).invalid, {("h1", "open"): "it fell over"})
        self.assertEqual(len(count), 1)


class Profiles(unittest.TestCase):
    def test_each_functions_own_cost_is_read(self):
        self.assertEqual(callgrind.read(CALLGRIND), {"main": 15, "route": 145})

    def test_a_file_that_does_not_add_up_is_refused(self):
        self.assertRaisesRegex(Trouble, "not understood", callgrind.read, CALLGRIND.replace("totals: 160", "totals: 161"))


class Processes(unittest.TestCase):
    def start(self, code):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        return self.enterContext(Process("part", [sys.executable, "-c", code], {min(os.sched_getaffinity(0))}, folder, ready_line=True))

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
