"""What /proc says about processes and ports, seen without any help of the daemon."""

import errno
import os
import random
import socket
import time
from collections import namedtuple


class Process(namedtuple("Process", "pid start parent command environment")):
    """A process that was seen; `start` tells two with one pid apart."""

    def __repr__(self):
        # An environment has secrets, and what fails is printed.
        return f"{self.pid} ({self.command})"


def _read(pid, name):
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:
            return file.read()
    except OSError:
        return b""


def _stat(pid):
    """Returns state, parent and start time; a process that is gone has the state X."""
    fields = _read(pid, "stat").rpartition(b")")[2].split()
    return (fields[0].decode(), int(fields[1]), int(fields[19])) if fields else ("X", 0, 0)


def is_alive(process):
    """Tells whether this very process still runs; zombies do not."""
    state, _, start = _stat(process.pid)
    return state not in "ZX" and start == process.start


def with_variable(name, value):
    """Returns the live processes that were started with this environment variable, by pid."""
    wanted = f"{name}={value}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        environment = _read(entry, "environ").split(b"\0")
        if wanted not in environment:
            continue
        state, parent, start = _stat(entry)
        if state in "ZX":
            continue
        variables = dict(v.decode(errors="replace").partition("=")[::2] for v in environment if b"=" in v)
        command = _read(entry, "cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
        found.append(Process(int(entry), start, parent, command, variables))
    return sorted(found)


def until(condition, what, seconds=60, interval=0.01):
    """Polls until the condition is true and returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not so within {seconds} s")
        time.sleep(interval)


def is_free(port):
    """Tells whether a server could listen on this port now; connections of the past do not count."""
    for family, address in [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")]:
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
                probe.listen()
        except OSError as error:
            # A machine without IPv6 has nothing to be taken there.
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                return False
    return True


def free_ports(count):
    """Chooses ports below those that the system gives to outgoing connections."""
    ports = set()
    while len(ports) < count:
        port = random.randrange(18000, 32000)
        if is_free(port):
            ports.add(port)
    return list(ports)


def cost(pid):
    """Returns the CPU seconds of a process, and the voluntary context switches of each of its threads."""
    ticks = sum(int(field) for field in _read(pid, "stat").rpartition(b")")[2].split()[11:13])
    switches = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        for line in _read(pid, f"task/{thread}/status").splitlines():
            if line.startswith(b"voluntary_ctxt_switches"):
                switches[thread] = int(line.split()[1])
    return ticks / os.sysconf("SC_CLK_TCK"), switches


def memory(pid, name, of="smaps_rollup"):
    """Returns a figure of /proc in KiB, for instance Pss."""
    for line in _read(pid, of).splitlines():
        if line.startswith(name.encode() + b":"):
            return int(line.split()[1])
    return 0
