# Handlers that each borrow a connection to a PostgreSQL server from a pool, and ask it something that takes 10 ms. Work are the answers.
# usage: connections.py PORT HANDLERS CONNECTIONS
import os
import signal
import sys
import threading
import time

import psycopg2.pool

port, handlers, connections = (int(argument) for argument in sys.argv[1:])
pool = psycopg2.pool.ThreadedConnectionPool(
    connections, connections, host="127.0.0.1", port=port, user="postgres", dbname="postgres"
)
# The pool raises where all are lent; an application waits.
free = threading.BoundedSemaphore(connections)
counts = [0] * handlers
begun = time.monotonic_ns()


def ask(connection):
    with connection.cursor() as cursor:
        cursor.execute("select pg_sleep(0.01)")
        cursor.fetchone()
    connection.rollback()


def handle(index):
    while True:
        with free:
            connection = pool.getconn()
            try:
                ask(connection)
            finally:
                pool.putconn(connection)
        counts[index] += 1


def tell(signum, frame):
    print(f"work {sum(counts)}\nns {time.monotonic_ns() - begun}", flush=True)
    # Handlers end with the process.
    os._exit(0)


signal.signal(signal.SIGTERM, tell)
for index in range(handlers):
    threading.Thread(target=handle, args=(index,), daemon=True).start()
print("begun", flush=True)
while True:
    time.sleep(3600)
