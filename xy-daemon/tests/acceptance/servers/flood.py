"""A server that writes COUNT numbered lines for each request in its FIFO, and says how long that took.

flood.py FIFO TIMES COUNT: a request is a word for the lines and the seconds the flood shall take, 0 for as fast as it
is read. TIMES gets one line with the seconds of each flood.
"""

import os
import sys
import time

BATCH = 1000

fifo, times, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
os.mkfifo(fifo)
os.write(1, b"waiting\n")
while True:
    with open(fifo, "rb") as trigger:
        name, seconds = trigger.read().decode().split()
    batches = [
        "".join(f"{name} {n:07} the quick brown fox jumps over it\n" for n in range(first, first + BATCH)).encode()
        for first in range(0, count, BATCH)
    ]
    begun = time.monotonic()
    for number, batch in enumerate(batches):
        ahead = begun + float(seconds) * number / len(batches) - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        while batch:
            batch = batch[os.write(1, batch) :]
    with open(times, "a", encoding="ascii") as report:
        report.write(f"{time.monotonic() - begun:.3f}\n")
    os.write(1, f"{name} over\n".encode())
