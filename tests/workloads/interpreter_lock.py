# Documents are parsed by four workers: threads, which share the interpreter's lock, or processes, which have one each.
# usage: interpreter_lock.py threads|processes
import mmap
import os
import signal
import struct
import sys
import threading
import time

WORKERS = 4
counts = mmap.mmap(-1, 8 * WORKERS)


def parse_document():
    total = 0
    for number in range(20000):
        total = (total * 31 + number) & 0xFFFF
    return total


def work(worker):
    done = 0
    while True:
        parse_document()
        done += 1
        struct.pack_into("Q", counts, 8 * worker, done)


def tell(children):
    elapsed = time.monotonic_ns() - begun
    print("work", sum(struct.unpack(f"{WORKERS}Q", counts)))
    print("ns", elapsed, flush=True)
    for child in children:
        os.kill(child, signal.SIGKILL)
    os._exit(0)


children = []
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
begun = time.monotonic_ns()
for worker in range(WORKERS):
    if sys.argv[1] == "threads":
        threading.Thread(target=work, args=(worker,), daemon=True).start()
    else:
        child = os.fork()
        if child == 0:
            work(worker)
        children.append(child)
print("begun", flush=True)
signal.sigwait([signal.SIGTERM])
tell(children)
