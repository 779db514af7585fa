"""An HTTPS server of GnuTLS, whose plaintext no probe reads: tls_gnutls.py PORT CERTIFICATE KEY FOLDER

GET only, one request a connection: the file of FOLDER that the path's last part names. The library is called by
ctypes; its numbers are those of gnutls/gnutls.h (ABI 30).
"""

import ctypes
import os
import socket
import sys
import threading

PORT, CERTIFICATE, KEY, FOLDER = sys.argv[1:5]
SERVER, CRD_CERTIFICATE, X509_FMT_PEM, SHUT_WR = 1, 1, 1, 1

gnutls = ctypes.CDLL("libgnutls.so.30")
for name in ("gnutls_record_recv", "gnutls_record_send"):
    getattr(gnutls, name).restype = ctypes.c_ssize_t
    getattr(gnutls, name).argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]


def checked(result, what):
    if result < 0:
        raise OSError(f"{what}: GnuTLS error {result}")
    return result


credentials = ctypes.c_void_p()
checked(gnutls.gnutls_certificate_allocate_credentials(ctypes.byref(credentials)), "credentials")
checked(
    gnutls.gnutls_certificate_set_x509_key_file(credentials, CERTIFICATE.encode(), KEY.encode(), X509_FMT_PEM),
    "certificate",
)


def serve(client):
    session = ctypes.c_void_p()
    checked(gnutls.gnutls_init(ctypes.byref(session), SERVER), "session")
    checked(gnutls.gnutls_set_default_priority(session), "priorities")
    checked(gnutls.gnutls_credentials_set(session, CRD_CERTIFICATE, credentials), "credentials")
    gnutls.gnutls_transport_set_int2(session, client.fileno(), client.fileno())
    if gnutls.gnutls_handshake(session) < 0:
        return
    head = b""
    buffer = ctypes.create_string_buffer(16384)
    while b"\r\n\r\n" not in head:
        length = checked(gnutls.gnutls_record_recv(session, buffer, 16384), "receive")
        if length == 0:
            return
        head += buffer.raw[:length]
    name = os.path.basename(head.split(b" ")[1].decode())
    with open(os.path.join(FOLDER, name), "rb") as file:
        body = file.read()
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body
    sent = 0
    while sent < len(answer):
        piece = answer[sent : sent + 16384]
        sent += checked(gnutls.gnutls_record_send(session, piece, len(piece)), "send")
    gnutls.gnutls_bye(session, SHUT_WR)
    client.close()


listener = socket.create_server(("127.0.0.1", int(PORT)))
while True:
    threading.Thread(target=serve, args=[listener.accept()[0]], daemon=True).start()
