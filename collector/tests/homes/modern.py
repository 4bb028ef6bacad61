"""A current ClickHouse behind the part of its HTTP interface that the collector uses: chdb, which is embedded, for tests where no current
server can be installed. One query at a time. Arguments: a directory of its own."""

import os
import struct
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import lz4.block
from chdb import session

DIRECTORY = sys.argv[1]
SESSION = session.Session(os.path.join(DIRECTORY, "chdb"))
ONE_AT_A_TIME = threading.Lock()
SESSION.query("SET max_query_size = 67108864, async_insert = 0")


def decompressed(body):
    """What blocks of `decompress=1` hold: a checksum of 16 bytes, the method, both sizes, LZ4."""
    whole = b""
    while body:
        method, packed, size = struct.unpack_from("<BII", body, 16)
        assert method == 0x82, method
        whole += lz4.block.decompress(body[25 : 16 + packed], uncompressed_size=size)
        body = body[16 + packed :]
    return whole


def inserted(sql, rows):
    """Inserts rows as a server would take them from the request's body."""
    table, columns = sql.split("INSERT INTO", 1)[1].split("FORMAT")[0].split("(", 1)
    names = [name.strip(" `)") for name in columns.split(",")]
    types = {}
    for line in str(SESSION.query(f"DESCRIBE TABLE {table}", "TabSeparated")).splitlines():
        name, kind = line.split("\t")[:2]
        types[name] = kind
    structure = ", ".join(f"{name} {types[name]}" for name in names).replace("'", "\\'")
    with tempfile.NamedTemporaryFile(dir=DIRECTORY) as file:
        file.write(rows)
        file.flush()
        own = ", ".join(names)
        SESSION.query(f"INSERT INTO {table} ({own}) SELECT {own} FROM file('{file.name}', 'RowBinary', '{structure}')")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        parameters = {name: values[0] for name, values in parse_qs(urlparse(self.path).query).items()}
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            with ONE_AT_A_TIME:
                SESSION.query("USE " + parameters.get("database", "default"))
                if "query" in parameters:
                    rows = decompressed(body) if parameters.get("decompress") == "1" else body
                    inserted(parameters["query"], rows)
                    answer = b""
                else:
                    answer = SESSION.query(body.decode(), parameters.get("default_format", "TabSeparated")).bytes()
            self.answer(200, bytes(answer or b""))
        except Exception as error:
            self.answer(500, str(error).encode())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
