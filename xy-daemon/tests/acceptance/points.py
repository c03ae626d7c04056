"""The seven points, each proven on real servers with its figures; started by `run`."""

import argparse
import copy
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
import traceback

from daemon import INSTANCE, SERVER, Connection, Daemon
from processes import cost, free_ports, is_alive, is_free, memory, until

HERE = pathlib.Path(__file__).resolve().parent
# A start of these servers on a busy machine; nothing is downloaded in it.
START = 60
LINES = 1_000_000


class Report:
    """What was proven and what was not."""

    def __init__(self):
        self.failures = []
        self.checks = 0
        self.point = ""

    def begin(self, point):
        self.point = point
        print(f"\n== {point}", flush=True)

    def figure(self, text):
        print(f"   {text}", flush=True)

    def check(self, holds, claim, otherwise=""):
        self.checks += 1
        if holds:
            print(f"ok {claim}", flush=True)
        else:
            print(f"FAILED {claim}: {otherwise}", flush=True)
            self.failures.append(f"{self.point}: {claim}: {otherwise}")


class Acceptance:
    """The servers and what is proven on them."""

    def __init__(self, options):
        self.report = Report()
        self.cache = pathlib.Path(options.cache)
        self.binaries = pathlib.Path(options.bin)
        self.everything = options.everything
        self.daemon = Daemon(options.bin, pathlib.Path(options.work) / "xy")
        self.ports = dict(zip(["node", "python", "rust", "escaper", "added", "removed"], free_ports(6)))
        # Three kinds of real MCP servers, and one program whose processes are as hard to end as they get.
        self.real = ["node", "python", "rust"]
        self.names = self.real + ["escaper"]
        for name in self.names:
            self.daemon.write(name, self.file(name))

    # The servers.

    def file(self, name, more="", **env):
        """Returns the text of a server file; `env` is laid over what the server needs."""
        port = self.ports[name]
        if name == "escaper":
            program = (sys.executable, [HERE / "servers/escaper.py"], self.cache)
            return process_file(name, *program, f"port: {port}, stop: (grace: \"500ms\"), {more}", PORT=port, **env)
        program = {
            "node": ("npx", ["-y", self.everything, "streamableHttp"], self.cache / "node"),
            "python": (self.cache / "python/bin/python", [HERE / "servers/fastmcp_server.py"], self.cache),
        }.get(name, (self.binaries / "mcp-example", ["--port", port], self.cache))
        return process_file(name, *program, f"port: {port}, ready: Mcp, {more}", PORT=port, **env)

    def up(self):
        """Makes sure that the daemon runs and its servers are ready."""
        if not self.daemon.process:
            self.daemon.start()
            self.daemon.until_answering()
        self.daemon.ctl("start", *self.names)

    def until_ready(self, *servers):
        def ready():
            known = self.daemon.all()
            return all(name in known and known[name]["ready"] for name in servers)

        until(ready, f"{', '.join(servers)} ready", START)

    def pids(self):
        return {name: server["pid"] for name, server in self.daemon.all().items()}

    def tools(self, name):
        """Returns the tools that an independent client lists."""
        modules = self.cache / "inspector/node_modules/.bin"
        done = subprocess.run(
            [modules / "mcp-inspector", "--cli", f"http://localhost:{self.ports[name]}/mcp", "--transport", "http"]
            + ["--protocol-era", "auto", "--method", "tools/list"],
            # It needs a newer node than the servers may have.
            env=os.environ | {"PATH": f"{modules}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            return f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"
        return sorted(tool["name"] for tool in json.loads(done.stdout)["tools"])

    def check_tools(self, name):
        tools = self.tools(name)
        expected = {"node": "echo", "python": "multiply"}.get(name, "add")
        found = isinstance(tools, list) and expected in tools
        count = len(tools) if found else 0
        self.report.check(found, f"{name}: an independent client lists its tools ({count})", tools)

    # The points.

    def point_1(self):
        """three real servers become ready by an MCP probe, and an independent client lists their tools"""
        if self.daemon.process:
            self.daemon.end(signal.SIGTERM)
        begun = time.monotonic()
        self.daemon.start()
        self.daemon.until_answering()
        self.report.figure(f"xyd answers after {ms(begun)}")
        waiting = set(self.names)

        def one_more():
            known = self.daemon.all()
            for name in sorted(waiting):
                if known[name]["ready"]:
                    waiting.discard(name)
                    self.report.figure(f"{name} ready after {ms(begun)}")
            return not waiting

        until(one_more, "all servers ready", START, 0.002)
        for name, server in self.daemon.all().items():
            so = server["state"] == "running" and server["ready"] and server["restart_count"] == 0
            self.report.check(so, f"{name}: running and ready", server)
            tree = self.daemon.tree(name)
            self.report.check(
                tree and tree[0].pid == server["pid"], f"{name}: {len(tree)} processes under the listed one", tree
            )
            if name in self.real:
                self.check_tools(name)
        self.idle()

    def idle(self):
        """Measures what the daemon costs when nothing happens."""
        pid = self.daemon.process.pid
        # Threads of the start that have nothing more to do end by themselves after ten seconds.
        time.sleep(11)
        cpu, before = cost(pid)
        time.sleep(10)
        cpu_after, after = cost(pid)
        switches = sum(after[thread] - before.get(thread, 0) for thread in after)
        self.report.figure(
            f"idle for 10 s with {len(self.names)} servers: {switches} wake-ups in {len(after)} threads, "
            f"{(cpu_after - cpu) * 1000:.0f} ms CPU"
        )
        rss = memory(pid, "VmRSS", "status")
        self.report.figure(f"xyd: {memory(pid, 'Pss')} KiB PSS, {rss} KiB RSS")
        sizes = [f"{name} {(self.binaries / name).stat().st_size / 2**20:.1f} MiB" for name in ["xyd", "xyctl"]]
        self.report.figure(f"binaries: {', '.join(sizes)}")

    def point_2(self):
        """kill -9 of any process of a server brings it back ready, counted, explained, with nothing left over"""
        self.up()
        for name in self.names:
            # An operator's start clears what earlier points have used up of the limit.
            self.daemon.ctl("restart", name)
            for index in range(len(self.daemon.tree(name))):
                self.kill_one(name, index)

    def kill_one(self, name, index):
        before, old = self.daemon.summary(name), self.daemon.tree(name)
        others = {other: pid for other, pid in self.pids().items() if other != name}
        marker = old[0].environment[INSTANCE]
        victim = old[index]
        begun = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        overlap = []

        def back():
            now = self.daemon.summary(name)
            if now["incarnation"] > before["incarnation"] and now["pid"]:
                overlap.extend(p for p in self.daemon.started(name) if p.environment[INSTANCE] == marker)
                return now["ready"] and now
            return None

        now = until(back, f"{name} is back after the end of process {index}", START)
        took = ms(begun)
        left = overlap + [p for p in old if is_alive(p)]
        what = f"{name}: kill -9 of process {index + 1} of {len(old)} ({short(victim.command)})"
        self.report.check(now["state"] == "running", f"{what}: ready again after {took}", now)
        counted = now["restart_count"] == before["restart_count"] + 1
        self.report.check(counted, f"{what}: the restart is counted", (before["restart_count"], now["restart_count"]))
        last = now["last_exit"]
        explained = last and last["incarnation"] == before["incarnation"] and last["cause"]
        self.report.check(explained, f"{what}: the cause is `{last and last['cause']}`", last)
        self.report.check(not left, f"{what}: nothing of the old incarnation is left", left)
        unharmed = {other: self.pids()[other] for other in others} == others
        self.report.check(unharmed, f"{what}: the other servers kept their processes", (others, self.pids()))

    def point_3(self):
        """stop returns when the tree is gone and the port is free, start brings it back, restart --all works"""
        self.up()
        for name in self.names:
            tree = self.daemon.tree(name)
            restarts = self.daemon.all()[name]["restart_count"]
            _, said, seconds = self.daemon.ctl("stop", name)
            left = self.daemon.started(name)
            free = is_free(self.ports[name])
            self.report.check(not left, f"{name}: stop returned after {seconds * 1000:.0f} ms and left nothing", left)
            self.report.check(free, f"{name}: its port is free", self.ports[name])
            # Nobody but the worker that ignores the signal has to be killed.
            named = ("kill" in said) == (name == "escaper")
            self.report.check(named, f"{name}: it said `{' '.join(said.split())}`", tree)
            server = self.daemon.all()[name]
            so = (server["state"], server["wanted"], server["pid"]) == ("stopped", "down", None)
            so = so and server["restart_count"] == restarts
            self.report.check(so, f"{name}: stopped, wanted down, not counted as a crash", server)
            _, _, seconds = self.daemon.ctl("start", name)
            self.report.check(
                self.daemon.all()[name]["ready"] and self.daemon.tree(name)[0].pid not in [p.pid for p in tree],
                f"{name}: start returned after {seconds * 1000:.0f} ms with the server ready",
                self.daemon.all()[name],
            )
            self.report.check(self.daemon.all()[name]["restart_count"] == 0, f"{name}: start clears its count")
            if name in self.real:
                self.check_tools(name)
        before = self.pids()
        _, _, seconds = self.daemon.ctl("restart", "--all")
        after = self.daemon.all()
        renewed = all(after[name]["ready"] and after[name]["pid"] != before[name] for name in before)
        self.report.check(renewed, f"restart --all returned after {seconds * 1000:.0f} ms with all ready", after)
        single = all(len({p.environment[INSTANCE] for p in self.daemon.started(name)}) == 1 for name in before)
        self.report.check(single, "one copy of each server runs", self.daemon.started())

    def point_4(self):
        """a server that exits at once backs off, fails after the sixth exit, and costs nobody anything"""
        self.up()
        before = self.pids()
        events = Connection(self.daemon.socket)
        subscription = events.call("events")["subscription_id"]
        self.daemon.write("crasher", process_file("crasher", "/bin/sh", ["-c", "exit 1"], "/"))
        self.daemon.write("halted", process_file("halted", "/bin/sh", ["-c", "exit 1"], "/"))
        begun = time.monotonic()
        self.daemon.ctl("reload")
        # In its third delay, which is four seconds, one of the two is stopped.
        until(lambda: self.daemon.all()["halted"]["restart_count"] >= 2, "two restarts")
        until(lambda: self.daemon.all()["halted"]["state"] == "restarting", "the third delay")
        self.report.figure(f"in its delay: {self.daemon.all()['halted']['next']}")
        _, _, seconds = self.daemon.ctl("stop", "halted")
        server = self.daemon.all()["halted"]
        so = seconds < 0.5 and (server["state"], server["wanted"]) == ("stopped", "down")
        self.report.check(so, f"stop in a delay returned after {seconds * 1000:.1f} ms", server)
        slowest = 0.0

        def failed():
            nonlocal slowest
            asked = time.monotonic()
            server = self.daemon.all()["crasher"]
            slowest = max(slowest, time.monotonic() - asked)
            return server["state"] == "failed" and server

        server = until(failed, "crasher failed", 90, 0.05)
        self.report.figure(f"failed after {time.monotonic() - begun:.1f} s")
        self.report.figure(f"`list` took {slowest * 1000:.1f} ms at most meanwhile")
        exits = []
        while not exits or exits[-1]["next"] != "failed":
            message = events.read()
            event = message.get("params", {})
            if event.get("subscription_id") == subscription and event.get("path") == "crasher":
                if event["type"] == "child_exited":
                    exits.append(event["payload"])
        events.close()
        delays = [exit_["delay_ms"] for exit_ in exits[:-1]]
        self.report.check(len(exits) == 6, "failed after the sixth exit", exits)
        grows = all(abs(delay - 1000 * 2**n) <= 100 * 2**n + 1 for n, delay in enumerate(delays))
        self.report.check(grows, f"the delays were {', '.join(f'{d} ms' for d in delays)}", delays)
        self.report.check(server["restart_count"] == 5, f"5 restarts; {server['last_exit']['cause']}", server)
        after = self.pids()
        unharmed = {name: after[name] for name in before} == before
        self.report.check(unharmed, "the other servers kept their processes", (before, after))
        still = self.daemon.all()["halted"]
        self.report.check(still["state"] == "stopped", "the stopped one stays stopped", still)
        for name in ["crasher", "halted"]:
            (self.daemon.servers / f"{name}.ron").unlink()
        self.daemon.ctl("reload")

    def point_5(self):
        """reload does exactly what changed in the files, and a broken file leaves its server alone"""
        self.daemon.write("removed", self.file("removed"))
        self.up()
        self.daemon.ctl("reload")
        self.until_ready("removed", *self.names)
        before = self.pids()
        self.daemon.write("added", self.file("added"))
        self.daemon.write("python", self.file("python", CHANGED="yes"))
        self.daemon.write("rust", self.file("rust", "restart: (backoff_max: \"20s\")"))
        self.daemon.write("node", self.file("node").replace("command:", "comand:"))
        (self.daemon.servers / "removed.ron").unlink()
        _, plan, _ = self.daemon.ctl("reload", "--dry-run", "--json", check=False)
        self.report.check(self.pids() == before, "a dry run changes nothing", (before, self.pids()))
        code, text, seconds = self.daemon.ctl("reload", "--json", check=False)
        result = json.loads(text)
        self.report.figure(f"reload returned after {seconds * 1000:.0f} ms")
        for part in result.items():
            for row in part[1]:
                self.report.figure(f"{part[0]} {row['name']}: {row['reason']}")
        lists = {part: [row["name"] for row in rows] for part, rows in result.items()}
        expected = {
            "added": ["added"],
            "changed": ["python", "rust"],
            "removed": ["removed"],
            "unchanged": ["escaper"],
            "rejected": ["node"],
        }
        self.report.check(lists == expected, "the answer names exactly what changed", lists)
        planned = {part: [row["name"] for row in rows] for part, rows in json.loads(plan).items()}
        self.report.check(planned == expected, "the dry run had said so", planned)
        self.report.check(code == 3, "exit code 3 says that a file was rejected", code)
        self.until_ready("added", *self.names)
        after = self.pids()
        self.report.check(after["node"] == before["node"], "the server of the broken file runs on", (before, after))
        self.report.check(after["rust"] == before["rust"], "a changed policy restarts nothing", (before, after))
        self.report.check(after["python"] != before["python"], "a changed environment restarts", (before, after))
        environment = self.daemon.tree("python")[0].environment
        self.report.check(environment.get("CHANGED") == "yes", "the new process has the new environment", environment)
        gone = "removed" not in after and not self.daemon.started("removed") and is_free(self.ports["removed"])
        self.report.check(gone, "the removed server is gone with its processes and port", after)
        error = self.daemon.summary("node")["config_error"]
        self.report.check(error and "comand" in error, "status names the mistake in the broken file", error)
        for name in self.real:
            self.check_tools(name)
        # Back to what the other points expect.
        for name in self.names:
            self.daemon.write(name, self.file(name))
        (self.daemon.servers / "added.ron").unlink()
        code, text, _ = self.daemon.ctl("reload", "--json")
        lists = {part: [row["name"] for row in rows] for part, rows in json.loads(text).items()}
        repaired = lists["unchanged"] == ["escaper", "node"] and self.pids()["node"] == before["node"]
        self.report.check(repaired, "a repaired file changes nothing", lists)
        self.until_ready(*self.names)

    def point_6(self):
        """a follower sees each of 1,000,000 lines once or a gap, and one that never reads slows nobody"""
        fifo, times = self.daemon.work / "flood.fifo", self.daemon.work / "flood.times"
        flood = process_file(
            "flood", sys.executable, [HERE / "servers/flood.py", fifo, times, LINES], self.cache, "autostart: false"
        )
        self.up()
        self.daemon.write("flood", flood)
        self.daemon.ctl("reload")
        self.daemon.ctl("start", "flood")
        times.touch()

        def run(label, pace=0):
            done = len(times.read_text("ascii").splitlines())
            fifo.write_text(f"{label} {pace}\n", "ascii")
            until(lambda: len(times.read_text("ascii").splitlines()) > done, "the flood is over", 120)
            return float(times.read_text("ascii").splitlines()[-1])

        until(fifo.exists, "the flood waits")
        run("warm")
        self.follow_flood(run, "json", 0, "--json")
        self.follow_flood(run, "plain", 0)
        self.follow_flood(run, "paced", 10)
        kept = f"{self.daemon.work}/state/xy/logs/flood.log"
        with open(kept, "rb") as file:
            last = file.read().splitlines()[-1].decode()
        self.report.check(last.endswith("paced over"), "the last line is in the log file", last)
        pid = self.daemon.process.pid
        rss = memory(pid, "VmRSS", "status")
        stuck = self.stuck_followers()
        alone, beside = [], []
        for number in range(3):
            for each, times_ in [(stuck.detach, alone), (stuck.attach, beside)]:
                each()
                times_.append(run(f"round{number}{'+' if times_ is beside else '-'}"))
        stuck.detach()
        middle, with_stuck = statistics.median(alone), statistics.median(beside)
        self.report.figure(f"without followers: {', '.join(f'{t:.2f}' for t in alone)} s")
        self.report.figure(f"with two that never read: {', '.join(f'{t:.2f}' for t in beside)} s")
        grown = memory(pid, "VmRSS", "status") - rss
        self.report.figure(f"xyd grew by {grown} KiB and had {memory(pid, 'VmHWM', 'status')} KiB RSS at most")
        as_fast = with_stuck <= 1.5 * middle + 0.2
        self.report.check(as_fast, f"a flood takes {middle:.2f} s, and {with_stuck:.2f} s beside them", beside)
        self.report.check(self.daemon.all()["flood"]["restart_count"] == 0, "the flooding server was not restarted")
        (self.daemon.servers / "flood.ron").unlink()
        self.daemon.ctl("reload")

    def follow_flood(self, run, label, pace, *flags):
        """Runs a flood under a reading `xyctl logs -f` and accounts for each line."""
        output, errors = self.daemon.work / f"{label}.out", self.daemon.work / f"{label}.err"
        with open(output, "wb") as out, open(errors, "wb") as err:
            follower = self.daemon.follow("flood", out, err, *flags)
        until(lambda: output.stat().st_size > 0, "the follower is attached")
        begun = time.monotonic()
        seconds = run(label, pace)

        def is_over():
            with open(output, "rb") as file:
                file.seek(max(0, output.stat().st_size - 1000))
                return f"{label} over".encode() in file.read()

        until(is_over, "the follower saw the end", 120)
        took = time.monotonic() - begun
        follower.send_signal(signal.SIGINT)
        code = follower.wait(10)
        self.report.check(code == 0, f"{label}: Ctrl-C ends the follower", code)
        account = accounting_json(output, label) if flags else accounting_plain(output, errors, label)
        seen, gaps, missing, wrong = account
        self.report.figure(f"{label}: the flood took {seconds:.2f} s, the follower was done after {took:.2f} s")
        self.report.check(
            not wrong and seen + missing == LINES,
            f"{label}: {seen} lines seen once, {missing} in {gaps} gaps, together {seen + missing}",
            wrong[:3],
        )

    def stuck_followers(self):
        """Returns followers that subscribe and never read: a raw connection, and xyctl with a full pipe."""
        daemon = self.daemon

        class Stuck:
            connection = follower = None

            def attach(self):
                self.connection = Connection(daemon.socket)
                self.connection.call("logs", name="flood", follow=True)
                self.follower = daemon.follow("flood", subprocess.PIPE, subprocess.DEVNULL)
                # One byte proves that it is attached; nothing more is read.
                os.read(self.follower.stdout.fileno(), 1)

            def detach(self):
                if self.follower:
                    self.follower.kill()
                    self.follower.wait()
                    self.follower.stdout.close()
                    self.connection.close()
                self.follower = self.connection = None

        return Stuck()

    def point_7(self):
        """SIGTERM leaves nothing; after kill -9 of xyd the next start sweeps, and there are never two copies"""
        self.up()
        ports = [self.ports[name] for name in self.names]
        code, seconds = self.daemon.end(signal.SIGTERM)
        left = self.daemon.started()
        self.report.check(code == 0, f"SIGTERM: exit code 0 after {seconds * 1000:.0f} ms", (code, self.daemon.said()))
        self.report.check(not left, "SIGTERM: no process is left", left)
        self.report.check(not self.daemon.socket.exists(), "SIGTERM: no socket is left", self.daemon.socket)
        self.report.check(all(map(is_free, ports)), "SIGTERM: all ports are free", ports)
        # Killed when all is ready, and in the middle of a start.
        for delay in [None, None, None, 0.02, 0.2, 0.6, 1.2, None]:
            self.kill_daemon(delay)
        self.kill_daemons()
        second = copy.copy(self.daemon)
        second.start()
        code = second.process.wait(10)
        self.report.check(code == 75, "a second xyd exits with 75", code)
        code, seconds = self.daemon.end(signal.SIGTERM)
        left = self.daemon.started()
        nothing = code == 0 and not left
        self.report.check(nothing, f"SIGTERM at the end: nothing left after {seconds * 1000:.0f} ms", left)

    def kill_daemon(self, delay):
        """Kills the daemon ready or `delay` seconds into its start, and starts the next one at once."""
        if not self.daemon.process:
            self.daemon.start()
            if delay is None:
                self.daemon.until_answering()
        if delay is None:
            self.until_ready(*self.names)
            when = "when all were ready"
        else:
            # The daemon that runs is ended first, so that the delay counts from a start.
            self.daemon.end(signal.SIGKILL)
            self.daemon.start()
            time.sleep(delay)
            when = f"{delay * 1000:.0f} ms after its start"
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon.forget()
        old = self.daemon.started()
        watch = Watch(self.daemon, old)
        begun = time.monotonic()
        what = f"kill -9 {when}"
        try:
            self.daemon.start()
            watch.start()
            self.daemon.until_answering()
            answering = ms(begun)
            self.until_ready(*self.names)
            self.report.figure(f"{what}: answers after {answering}, all ready after {ms(begun)}")
        finally:
            # What was seen explains why it did not come to that.
            watch.stop()
            swept = self.daemon.said().count("an earlier daemon left was killed")
            still = [p for p in old if is_alive(p)]
            self.report.check(not still, f"{what}: {len(old)} left, {swept} swept, the rest died with it", still)
            self.report.check(not watch.copies, f"{what}: never two copies in {watch.looks} looks", watch.copies[:2])
            self.report.check(not watch.early, f"{what}: nothing started before all the old was gone", watch.early[:2])


    def kill_daemons(self):
        """Kills one daemon after the other while it starts its servers."""
        rounds = 40
        watch = Watch(self.daemon, [])
        watch.start()
        most = 0
        for number in range(rounds):
            self.daemon.process.kill()
            self.daemon.process.wait()
            self.daemon.forget()
            most = max(most, len(self.daemon.started()))
            self.daemon.start()
            time.sleep(0.003 * number)
        self.daemon.until_answering()
        begun = time.monotonic()
        self.until_ready(*self.names)
        ready = ms(begun)
        watch.stop()
        what = f"{rounds} times kill -9 within {3 * rounds} ms of a start"
        self.report.check(
            not watch.copies, f"{what}: never two copies in {watch.looks} looks, {most} left at most", watch.copies[:2]
        )
        running = self.daemon.started()
        copies = {(p.environment[SERVER], p.environment[INSTANCE]) for p in running}
        single = sorted(server for server, _ in copies) == sorted(self.names)
        self.report.check(single, f"{what}: one copy of each after that, all ready {ready} later", running)


class Watch(threading.Thread):
    """Looks again and again for two copies of a server, and for a new process beside one of the old daemon."""

    def __init__(self, daemon, old):
        super().__init__(daemon=True)
        self.daemon_ = daemon
        self.old = old
        self.copies = []
        self.early = []
        self.looks = 0
        self.over = threading.Event()

    def run(self):
        old_markers = {p.environment.get(INSTANCE) for p in self.old}
        while not self.over.is_set():
            found = self.daemon_.started()
            by_server = {}
            for process in found:
                server, marker = process.environment.get(SERVER), process.environment.get(INSTANCE)
                if server and marker:
                    by_server.setdefault(server, {}).setdefault(marker, []).append(process)
            for server, markers in by_server.items():
                # A look takes a while: what it saw counts only if it is so at one moment, now.
                if len(markers) > 1 and sum(any(map(is_alive, tree)) for tree in markers.values()) > 1:
                    self.copies.append((server, markers))
            new = [p for p in found if p.environment.get(SERVER) and p.environment.get(INSTANCE) not in old_markers]
            if new:
                self.early += [(p, new[0]) for p in self.old if is_alive(p)]
            self.looks += 1

    def stop(self):
        self.over.set()
        self.join()


def process_file(name, command, arguments, directory, more="", **env):
    """Returns the text of a server file."""

    def text(value):
        return json.dumps(str(value))

    variables = ", ".join(f"{text(key)}: {text(value)}" for key, value in ({SERVER: name} | env).items())
    return (
        f"Process(command: {text(command)}, args: [{', '.join(map(text, arguments))}],\n"
        f"    working_dir: {text(directory)}, env: {{{variables}}},\n    {more})\n"
    )


def accounting_json(output, label):
    """Returns lines seen, gaps, lines missing in them, and what is wrong, by the numbers of the lines."""
    seen = gaps = missing = 0
    expected, offset, wrong = None, None, []
    with open(output, "rb") as file:
        for raw in file:
            item = json.loads(raw)
            first, last = (item["number"],) * 2 if item["type"] == "log" else (item["first"], item["last"])
            if expected is not None and first != expected:
                wrong.append(f"number {first} instead of {expected}")
            expected = last + 1
            if item["type"] == "log_gap":
                gaps += 1
                missing += last - first + 1
                continue
            words = item["line"].split()
            if words[0] != label or words[1] == "over":
                continue
            seen += 1
            offset = first - int(words[1]) if offset is None else offset
            if first - int(words[1]) != offset:
                wrong.append(f"line `{item['line']}` has the number {first}")
    return seen, gaps, missing, wrong


def accounting_plain(output, errors, label):
    """The same of the plain output, where gaps are counted on standard error."""
    seen, last, missing, wrong = 0, -1, [], []
    with open(output, "rb") as file:
        for raw in file:
            words = raw.split()
            if words[0] != label.encode() or words[1] == b"over":
                continue
            number = int(words[1])
            if number <= last:
                wrong.append(f"line {number} after {last}")
            elif number > last + 1:
                missing.append(number - last - 1)
            last, seen = number, seen + 1
    if last < LINES - 1:
        missing.append(LINES - 1 - last)
    told = [
        int("".join(filter(str.isdigit, line)))
        for line in errors.read_text("utf-8").splitlines()
        if "skipped" in line
    ]
    if told != missing:
        wrong.append(f"told {told[:9]}, missing {missing[:9]}")
    return seen, len(told), sum(told), wrong


def ms(begun):
    return f"{(time.monotonic() - begun) * 1000:.0f} ms"


def short(command):
    return command if len(command) <= 40 else f"{command[:20]}…{command[-19:]}"


def main():
    parser = argparse.ArgumentParser()
    for option in ["--bin", "--cache", "--work", "--everything"]:
        parser.add_argument(option, required=True)
    parser.add_argument("points", nargs="*", type=int)
    options = parser.parse_args()
    acceptance = Acceptance(options)
    report = acceptance.report
    try:
        for number in options.points or range(1, 8):
            point = getattr(acceptance, f"point_{number}")
            report.begin(f"{number}. {point.__doc__}")
            try:
                point()
            except Exception as error:  # One point that breaks off must not hide the others.
                report.check(False, "the point is completed", f"{type(error).__name__}: {error}")
                traceback.print_exc()
                print(acceptance.daemon.said()[-3000:], file=sys.stderr)
    finally:
        acceptance.daemon.clean_up()
    print(f"\n{report.checks} checks, {len(report.failures)} failed")
    for failure in report.failures:
        print(f"FAILED {failure}")
    return 1 if report.failures else 0


if __name__ == "__main__":
    # SIGTERM ends it like Ctrl-C: what was started is ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
