"""A server whose worker has its own session and no parent, ignores SIGTERM, and listens on the port that PORT names.

The main process ends when its worker does; it does not end its worker.
"""

import os
import signal
import socket

read, write = os.pipe()
first = os.fork()
if first == 0:
    os.close(read)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))) as listener:
        while True:
            listener.accept()[0].close()
os.close(write)
os.waitpid(first, 0)
# The end of the pipe is the end of the worker, which alone holds its other side.
os.read(read, 1)
raise SystemExit(1)
