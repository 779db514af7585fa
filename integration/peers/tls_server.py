"""An HTTPS server of Python's ssl module: tls_server.py MODEL PORT CERTIFICATE KEY FOLDER

MODEL: `threads` (http.server, a thread for each connection, the handshake in the accepting thread), `prefork`
(three children of os.fork share the listener, so their SSL objects have equal addresses) or `asyncio` (memory
BIOs; head and body leave in one segment).

GET: the file of FOLDER that the path's last part names. POST, PUT: the body comes back. `?wait=MILLISECONDS` delays
the answer. Each answer says which process made it (`X-Pid`).
"""

import ctypes
import signal
import asyncio
import os
import socket
import ssl
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

MODEL, PORT, CERTIFICATE, KEY, FOLDER = sys.argv[1:6]


def context():
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(CERTIFICATE, KEY)
    made.set_alpn_protocols(["http/1.1"])
    return made


def content(target):
    """Status and body of the answer to a GET."""
    name = os.path.basename(urlsplit(target).path)
    try:
        with open(os.path.join(FOLDER, name), "rb") as file:
            return 200, file.read()
    except OSError:
        return 404, b"Nothing here."


def delay(target):
    """Seconds to wait before the answer."""
    return int(parse_qs(urlsplit(target).query).get("wait", ["0"])[0]) / 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body):
        time.sleep(delay(self.path))
        self.send_response(status)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Pid", str(os.getpid()))
        self.end_headers()
        # One call of the library, whatever the size.
        self.wfile.write(body)

    def do_GET(self):
        self.answer(*content(self.path))

    def do_POST(self):
        self.answer(200, self.rfile.read(int(self.headers["Content-Length"])))

    do_PUT = do_POST

    def log_message(self, *arguments):
        pass


def threads(listener):
    server = ThreadingHTTPServer(("127.0.0.1", int(PORT)), Handler, bind_and_activate=False)
    server.daemon_threads = True
    server.socket.close()
    server.socket = context().wrap_socket(listener, server_side=True)
    server.serve_forever()


def prefork(listener):
    # Made before the children are: each of them allocates the same things at the same addresses from here on.
    made = context()
    for _ in range(3):
        if os.fork() == 0:
            # PR_SET_PDEATHSIG, SIGKILL: the test ends the parent only.
            ctypes.CDLL(None).prctl(1, signal.SIGKILL)
            while True:
                connection, peer = listener.accept()
                try:
                    with made.wrap_socket(connection, server_side=True) as wrapped:
                        Handler(wrapped, peer, None)
                except OSError:
                    pass
    while True:
        os.wait()


async def talk(reader, writer):
    try:
        while line := await reader.readline():
            method, target, _ = line.decode().split(" ")
            length = 0
            while (line := await reader.readline()).strip():
                name, value = line.decode().split(":", 1)
                if name.lower() == "content-length":
                    length = int(value)
            status, body = (200, await reader.readexactly(length)) if length else content(target)
            await asyncio.sleep(delay(target))
            head = f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\nX-Pid: {os.getpid()}\r\n\r\n"
            # Two calls of the library, then one of the socket: several records in one segment.
            writer.writelines([head.encode(), body])
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def asynchronous(listener):
    server = await asyncio.start_server(talk, sock=listener, ssl=context())
    await server.serve_forever()


listening = socket.create_server(("127.0.0.1", int(PORT)), backlog=128)
if MODEL == "asyncio":
    asyncio.run(asynchronous(listening))
else:
    {"threads": threads, "prefork": prefork}[MODEL](listening)
