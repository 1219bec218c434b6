"""Processes: started on one core, waited for, measured with all their children, ended by pid."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# What is set beside.
EXTRA = {}


class Trouble(Exception):
    """A part does not do what the benchmark needs; the message says which and what it wrote."""


def free_ports(count):
    """Ports that nobody listens on now. They lie below those that outgoing connections take, of which there will be thousands."""
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = []
    while len(found) < count:
        port = random.randrange(10000, lowest)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


def own_environment():
    """This process's, without what would change cloakroom's config, and with what its image and its unit set."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("CLOAKROOM_", "MIMALLOC_"))}
    return own | {"MIMALLOC_PURGE_EXTEND_DELAY": "0"} | EXTRA


class Process:
    """One running part, in a session of its own. `cores` are the only ones that it and its children may use."""

    def __init__(self, name, command, cores, run, *, env=None, ready_line=False):
        self.name, self.log, self.stopped = name, Path(run, f"{name}.log"), False
        with open(self.log, "wb") as log:
            self.child = subprocess.Popen(
                command, cwd=run, env=(env or own_environment()), start_new_session=True, stdin=subprocess.PIPE, stderr=log,
                stdout=subprocess.PIPE if ready_line else log,
                preexec_fn=lambda: os.sched_setaffinity(0, cores),
            )
        self.ready_line = self.child.stdout.readline().decode() if ready_line else ""

    def __enter__(self):
        return self

    def __exit__(self, *_exception):
        self.stop()

    def written(self):
        return self.log.read_text(errors="replace")[-2000:]

    def wait_for_port(self, port):
        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        self.wait_for(listens, f"listen on {port}")

    def wait_for(self, condition, what, seconds=30):
        end = time.monotonic() + seconds
        while not condition():
            if self.child.poll() is not None:
                raise Trouble(f"{self.name} ended with {self.child.returncode}: {self.written()}")
            if time.monotonic() > end:
                raise Trouble(f"{self.name} does not {what}: {self.written()}")
            time.sleep(0.01)

    def all(self):
        """The ids of all processes of its session: its own and those of its children, whoever their parent is by now."""
        pids = (int(path.name) for path in Path("/proc").glob("[0-9]*"))
        return [pid for pid in pids if stat(pid)[3:4] == [str(self.child.pid)]]

    def cpu(self):
        """Seconds of user and system time of all of them so far, with those of children that have ended."""
        user = system = 0
        for pid in self.all():
            fields = stat(pid)
            if fields:
                user += int(fields[11]) + int(fields[13])
                system += int(fields[12]) + int(fields[14])
        return user / TICKS, system / TICKS

    def move(self, cores):
        """From now on it may use these cores only."""
        for pid in self.all():
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)

    def pss(self):
        """Bytes of memory of all of them, what is shared divided by its sharers."""
        total = 0
        for pid in self.all():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # ended meanwhile
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024
        return total

    def stop(self, patience=5):
        """Asks it to end, and ends whatever of it is left after so many seconds."""
        if self.stopped:
            return
        self.stopped = True
        self.child.stdin.close()
        self.child.terminate()
        try:
            self.child.wait(patience)
        except subprocess.TimeoutExpired:
            pass
        for pid in self.all():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.child.wait()
        if self.child.stdout:
            self.child.stdout.close()


def stat(pid):
    """The fields of /proc/PID/stat from the state on, which is the third; none if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def busy(core):
    """Seconds that this core has worked so far, for whomever."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / TICKS
    raise Trouble(f"there is no core {core}")
