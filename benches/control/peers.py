#!/usr/bin/env python3
"""How fast the control channels of supervisord, circus and pm2 answer for the status of one of ten children, each asked by
its own client library over one connection where it keeps one. What is not in target/peers is named and left out."""

import http.client
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import xmlrpc.client

PEERS = pathlib.Path(__file__).resolve().parents[2] / "target/peers"
CHILDREN = 10
ASKED = int(os.environ.get("ASKED", "2000"))
PATIENCE = 30


def told(name, times):
    times.sort()
    at = lambda part: times[min(int(len(times) * part), len(times) - 1)] * 1e6
    rate = len(times) / sum(times)
    print(f"{name:<28} p50 {at(.5):>8.0f} us  p99 {at(.99):>8.0f} us  max {at(1):>8.0f} us  {rate:>7.0f}/s, one connection")


def measure(name, ask):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            ask()
            break
        except Exception as error:
            if time.monotonic() > deadline:
                print(f"{name}: does not answer: {error}")
                return
            time.sleep(0.1)
    times = []
    for _ in range(ASKED):
        began = time.perf_counter()
        ask()
        times.append(time.perf_counter() - began)
    told(name, times)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost")
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self.path)


class UnixTransport(xmlrpc.client.Transport):
    def __init__(self, path):
        super().__init__()
        self.path = path

    def make_connection(self, host):
        if self._connection[1] is None:
            self._connection = host, UnixConnection(self.path)
        return self._connection[1]


def supervisord(place):
    program = PEERS / "usr/bin/supervisord"
    path = f"{place}/supervisor.sock"
    programs = "".join(f"[program:s{i}]\ncommand=/bin/sleep infinity\n" for i in range(CHILDREN))
    (place / "supervisord.conf").write_text(
        f"[supervisord]\nnodaemon=true\nlogfile={place}/s.log\npidfile={place}/s.pid\nchildlogdir={place}\n"
        f"[unix_http_server]\nfile={path}\n[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n" + programs)
    environment = {**os.environ, "PYTHONPATH": str(PEERS / "usr/lib/python3/dist-packages")}
    command = [sys.executable, str(program), "-c", f"{place}/supervisord.conf"]
    with running(command, environment):
        proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=UnixTransport(path))
        measure("supervisord, XML-RPC", lambda: proxy.supervisor.getProcessInfo("s0"))


def circus(place):
    watchers = "".join(f"[watcher:s{i}]\ncmd=/bin/sleep infinity\n" for i in range(CHILDREN))
    endpoint = f"ipc://{place}/circus"
    (place / "circus.ini").write_text(
        f"[circus]\nendpoint={endpoint}\npubsub_endpoint=ipc://{place}/pubsub\n{watchers}")
    asking = place / "ask.py"
    asking.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\nimport peers\nfrom circus.client import CircusClient\n"
        f"client = CircusClient(endpoint={endpoint!r}, timeout=5)\n"
        "peers.measure('circus, zmq', lambda: client.send_message('status', name='s0'))\n")
    bin_ = PEERS / "circus/bin"
    with running([str(bin_ / "circusd"), str(place / "circus.ini")], os.environ):
        subprocess.run([str(bin_ / "python"), str(asking), str(pathlib.Path(__file__).parent)], check=False)


def pm2(place):
    modules = PEERS / "pm2/node_modules"
    environment = {**os.environ, "PM2_HOME": str(place / "pm2"), "NODE_PATH": str(modules)}
    asking = place / "ask.js"
    asking.write_text(f"""
const pm2 = require('pm2');
const call = (name, ...given) => new Promise((good, bad) => pm2[name](...given, (error, found) => error ? bad(error) : good(found)));
(async () => {{
    await call('connect');
    for (let i = 0; i < {CHILDREN}; i++) await call('start', {{ script: '/bin/sleep', args: 'infinity', interpreter: 'none', name: 's' + i }});
    const times = [];
    for (let i = 0; i < {ASKED}; i++) {{
        const began = process.hrtime.bigint();
        await call('describe', 's0');
        times.push(Number(process.hrtime.bigint() - began) / 1e9);
    }}
    console.log('TIMES ' + JSON.stringify(times));
    await call('killDaemon').catch(() => 0);
    process.exit(0);
}})();
""")
    ran = subprocess.run(["node", str(asking)], env=environment, capture_output=True, text=True, timeout=120)
    times = [line for line in ran.stdout.splitlines() if line.startswith("TIMES ")]
    if times:
        told("pm2, its own RPC", __import__("json").loads(times[0][6:]))
    else:
        print(f"pm2: does not answer: {ran.stderr[-300:]}")


class running:
    """A supervisor that is ended with its children afterwards."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def main():
    parts = [
        ("supervisord", supervisord, PEERS / "usr/bin/supervisord"),
        ("circus", circus, PEERS / "circus/bin/circusd"),
        ("pm2", pm2, PEERS / "pm2/node_modules/.bin/pm2"),
    ]
    for name, run, program in parts:
        if not program.exists() or (name == "pm2" and not shutil.which("node")):
            print(f"{name}: cannot be had here")
            continue
        with tempfile.TemporaryDirectory() as place:
            run(pathlib.Path(place))


if __name__ == "__main__":
    main()
