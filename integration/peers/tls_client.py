"""An HTTPS client of Python's ssl module: tls_client.py MODEL HOST PORT CA [tls1.2]

MODEL: `session` (http.client, one kept-alive connection), `urllib` (a connection for each request), `asyncio`
(memory BIOs; head and body of a request in one segment), `nonblocking` (a socket with tiny buffers: calls are
tried again after WANT_READ and WANT_WRITE), `resumed` (a connection for each request, by the session of the one
before) or `parallel` (a connection and a thread for each path of a line, begun one after the other).

HOST is always 127.0.0.1. Each line of standard input, `METHOD PATH [FILE OF THE BODY]`, is a request and gets a
line: `STATUS LENGTH SHA1`. The TLS library is loaded by dlopen when the first line comes.
"""

import hashlib
import socket
import sys

MODEL, HOST, PORT, CA, *OPTIONS = sys.argv[1:]
PORT = int(PORT)

found = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **named: found("127.0.0.1", *rest, **named)


def context():
    import ssl

    made = ssl.create_default_context(cafile=CA)
    made.set_alpn_protocols(["http/1.1"])
    if "tls1.2" in OPTIONS:
        made.maximum_version = ssl.TLSVersion.TLSv1_2
    return made


def summary(status, body):
    return f"{status} {len(body)} {hashlib.sha1(body).hexdigest()}"


def head(method, path, body):
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{PORT}\r\n{length}\r\n".encode()


def split(raw):
    """Status, length of the body and what has come of it, once the whole head is there."""
    top, _, rest = raw.partition(b"\r\n\r\n")
    lines = top.decode().split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines[1:])
    return int(lines[0].split(" ")[1]), int(fields.get("content-length", 0)), rest


class Session:
    def __init__(self):
        import http.client

        self.connection = http.client.HTTPSConnection(HOST, PORT, context=context())

    def ask(self, method, path, body):
        self.connection.request(method, path, body)
        answer = self.connection.getresponse()
        return summary(answer.status, answer.read())


class Urllib:
    def __init__(self):
        import urllib.request as request

        self.request, self.opener = request, request.build_opener(request.HTTPSHandler(context=context()))

    def ask(self, method, path, body):
        fields = {"Content-Type": "application/octet-stream"} if body else {}
        made = self.request.Request(f"https://{HOST}:{PORT}{path}", data=body, headers=fields, method=method)
        with self.opener.open(made) as answer:
            return summary(answer.status, answer.read())


class Asyncio:
    def __init__(self):
        import asyncio

        self.loop = asyncio.new_event_loop()
        self.streams = self.loop.run_until_complete(
            asyncio.open_connection("127.0.0.1", PORT, ssl=context(), server_hostname=HOST)
        )

    async def exchange(self, method, path, body):
        reader, writer = self.streams
        # Two calls of the library before one of the socket.
        writer.writelines([head(method, path, body)] + ([body] if body else []))
        await writer.drain()
        top = await reader.readuntil(b"\r\n\r\n")
        status, length, _ = split(top)
        return summary(status, await reader.readexactly(length))

    def ask(self, method, path, body):
        return self.loop.run_until_complete(self.exchange(method, path, body))


class Nonblocking:
    def __init__(self):
        import select
        import ssl

        self.select, self.ssl = select, ssl
        raw = socket.socket()
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            raw.setsockopt(socket.SOL_SOCKET, option, 4096)
        raw.connect(("127.0.0.1", PORT))
        raw.setblocking(False)
        self.socket = context().wrap_socket(raw, server_hostname=HOST, do_handshake_on_connect=False)
        self.again(self.socket.do_handshake)

    def again(self, call, *arguments):
        self.retries = getattr(self, "retries", 0)
        while True:
            try:
                return call(*arguments)
            except self.ssl.SSLWantReadError:
                self.select.select([self.socket], [], [])
            except self.ssl.SSLWantWriteError:
                self.select.select([], [self.socket], [])
            self.retries += 1

    def ask(self, method, path, body):
        sent = head(method, path, body) + (body or b"")
        while sent:
            # Without partial writes: the same call again and again, until all is gone.
            sent = sent[self.again(self.socket.send, sent) :]
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += self.again(self.socket.recv, 300)
        status, length, rest = split(raw)
        while len(rest) < length:
            rest += self.again(self.socket.recv, 5000)
        return f"{summary(status, rest)} {self.retries}"


class Resumed:
    def __init__(self):
        self.context, self.session = context(), None

    def ask(self, method, path, body):
        with socket.create_connection(("127.0.0.1", PORT)) as raw:
            with self.context.wrap_socket(raw, server_hostname=HOST, session=self.session) as wrapped:
                wrapped.sendall(head(method, path, body) + (body or b""))
                answer = b""
                while b"\r\n\r\n" not in answer:
                    answer += wrapped.recv(65536)
                status, length, rest = split(answer)
                while len(rest) < length:
                    rest += wrapped.recv(65536)
                self.session = wrapped.session
                return f"{summary(status, rest)} {'resumed' if wrapped.session_reused else 'new'}"


class Parallel:
    def __init__(self):
        self.sessions = []

    def all(self, paths):
        import threading

        while len(self.sessions) < len(paths):
            self.sessions.append(Session())
            # Connected before any thread begins.
            self.sessions[-1].connection.connect()
        answers = [None] * len(paths)

        def one(at):
            answers[at] = self.sessions[at].ask("GET", paths[at], None)

        threads = [threading.Thread(target=one, args=[at]) for at in range(len(paths))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return " ".join(answers)


MODELS = {
    "session": Session,
    "urllib": Urllib,
    "asyncio": Asyncio,
    "nonblocking": Nonblocking,
    "resumed": Resumed,
    "parallel": Parallel,
}
client = None
print("ready", flush=True)
for line in sys.stdin:
    client = client or MODELS[MODEL]()
    method, *words = line.split()
    if MODEL == "parallel":
        print(client.all(words), flush=True)
        continue
    body = None
    if len(words) > 1:
        with open(words[1], "rb") as file:
            body = file.read()
    print(client.ask(method, words[0], body), flush=True)
