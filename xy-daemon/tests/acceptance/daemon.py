"""One xyd in directories of its own: started, asked over its socket, driven by xyctl, and ended."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import uuid

from processes import is_alive, until, with_variable

# In the environment of everything that a daemon of this run starts, and of nothing else.
TAG = "XY_ACCEPTANCE"
# In the environment of each server: which one it is.
SERVER = "XY_ACCEPTANCE_SERVER"
# The daemon's own mark of one start of one server.
INSTANCE = "XY_INSTANCE"


class Connection:
    """One connection to the control socket."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.lines = self.socket.makefile("rb")
        self.last = 0

    def call(self, method, **params):
        """Returns the result of a request; notifications before it are dropped."""
        self.last += 1
        request = {"jsonrpc": "2.0", "id": self.last, "method": method, "params": params}
        self.socket.sendall(json.dumps(request).encode() + b"\n")
        while True:
            message = self.read()
            if message.get("id") == self.last:
                if "error" in message:
                    raise RuntimeError(f"{method}: {message['error']}")
                return message["result"]

    def read(self):
        """Returns the next message."""
        line = self.lines.readline()
        if not line:
            raise ConnectionError("the daemon closed the connection")
        return json.loads(line)

    def close(self):
        self.lines.close()
        self.socket.close()


class Daemon:
    """xyd with its directories; the directories outlive each of its processes."""

    def __init__(self, binaries, work):
        self.binaries = pathlib.Path(binaries)
        self.work = pathlib.Path(work)
        self.servers = self.work / "config/xy/servers"
        self.socket = self.work / "run/xy/xyd.sock"
        self.stderr = self.work / "xyd.stderr"
        self.tag = uuid.uuid4().hex
        self.process = None
        self.connection = None
        for directory in ["config/xy/servers", "state", "run", "home"]:
            (self.work / directory).mkdir(parents=True, mode=0o700)
        own = {
            "XDG_CONFIG_HOME": str(self.work / "config"),
            "XDG_STATE_HOME": str(self.work / "state"),
            "XDG_RUNTIME_DIR": str(self.work / "run"),
            "HOME": str(self.work / "home"),
            "NO_COLOR": "1",
        }
        # What the caller's own daemon or editor has set must not reach this one.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("XY_")}
        self.environment = inherited | own

    def start(self):
        """Starts a process and returns without waiting for anything."""
        self.stderr_at = self.stderr.stat().st_size if self.stderr.exists() else 0
        with open(self.stderr, "ab") as stderr:
            self.process = subprocess.Popen(
                # What is measured and killed here is the daemon itself; the guard has tests of its own.
                [self.binaries / "xyd", "--no-guard"],
                env=self.environment | {TAG: self.tag},
                stdin=subprocess.DEVNULL,
                stderr=stderr,
            )

    def until_answering(self):
        def connected():
            if self.process.poll() is not None:
                raise RuntimeError(f"xyd exited with {self.process.returncode}:\n{self.said()}")
            try:
                return Connection(self.socket)
            except OSError:
                return None

        self.connection = until(connected, "xyd listens", interval=0.002)
        # The socket is there before the sweep; an answer comes after it.
        self.connection.call("version")

    def said(self):
        """Returns what the current process wrote to its standard error."""
        with open(self.stderr, "rb") as file:
            file.seek(self.stderr_at)
            return file.read().decode(errors="replace")

    def end(self, how):
        """Sends a signal, waits for the end, and returns the exit code and the seconds it took."""
        begun = time.monotonic()
        self.process.send_signal(how)
        code = self.process.wait(60)
        self.forget()
        return code, time.monotonic() - begun

    def forget(self):
        if self.connection:
            self.connection.close()
        self.process = self.connection = None

    def clean_up(self):
        """Ends whatever is left of this run."""
        if self.process and self.process.poll() is None:
            try:
                self.end(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        while leftover := self.started():
            for process in leftover:
                try:
                    os.kill(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            until(lambda: not any(map(is_alive, leftover)), "leftover processes end")

    def started(self, server=None):
        """Returns the live processes that a daemon of this run started, of one server or of all."""
        mine = with_variable(TAG, self.tag)
        own = self.process.pid if self.process else None
        return [p for p in mine if p.pid != own and server in (None, p.environment.get(SERVER))]

    def tree(self, name):
        """Returns the live processes of a server, parents first."""
        left, ordered = self.started(name), []
        while left:
            pids = {p.pid for p in left}
            tops = [p for p in left if p.parent not in pids]
            ordered += tops
            left = [p for p in left if p not in tops]
        return ordered

    def summary(self, name):
        """Returns what the daemon says about a server."""
        return self.connection.call("status", name=name)

    def all(self):
        return {server["name"]: server for server in self.connection.call("list")["servers"]}

    def ctl(self, *arguments, check=True):
        """Runs xyctl and returns exit code, output and seconds; a failure is an error unless it is expected."""
        begun = time.monotonic()
        done = subprocess.run(
            [self.binaries / "xyctl", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=330,
            check=False,
        )
        seconds = time.monotonic() - begun
        if check and done.returncode != 0:
            raise RuntimeError(f"xyctl {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.returncode, done.stdout, seconds

    def follow(self, name, output, errors, *flags):
        """Starts `xyctl logs -f` into files."""
        return subprocess.Popen(
            [self.binaries / "xyctl", "logs", "-f", *flags, name],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
        )

    def write(self, name, text):
        """Writes a server file as an editor does, so that it is never seen half written."""
        new = self.servers / f".{name}.new"
        new.write_text(text, encoding="utf-8")
        new.rename(self.servers / f"{name}.ron")
