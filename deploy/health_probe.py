#!/usr/bin/env python3
"""Asks a gRPC server for its health (grpc.health.v1) with nothing but Python's standard library.

    health_probe.py [--host HOST] [--port PORT] [--service NAME] [--timeout SECONDS] [--tls DIR]

Exits 0 when the server answers SERVING, 1 when it answers anything else or does not answer, 2 for wrong usage. Without
--service the question is whether the program is alive. Readiness has names: `shardproof.v1.Runs` (a coordinator whose model
is set up) and `shardproof.v1.Activations` (a worker that holds its shard). The port defaults to SHARDPROOF_HEALTH_PORT.

With --tls, or SHARDPROOF_TLS in the environment, it speaks TLS and believes the authority in the directory's ca.pem. It shows
no certificate, since health is told to anyone, and compares no host name: it asks its own machine, by whatever address.

One unary call needs little of HTTP/2: the client's preface, one HEADERS frame whose fields are all literals, one DATA
frame. Of what comes back only the DATA frame of the stream matters, so no header is ever decompressed.
"""

import argparse
import os
import socket
import ssl
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, END_HEADERS, PADDED, ACK = 0x1, 0x4, 0x8, 0x1
LONGEST_FRAME = 1 << 14
NAMES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}


class Unhealthy(Exception):
    """Why the server does not count as healthy."""


def frame(kind, flags, stream, payload):
    """One HTTP/2 frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header field that is not indexed and not compressed (RFC 7541, section 6.2.2)."""
    fields = [text.encode() for text in (name, value)]
    if any(len(field) > 126 for field in fields):
        raise Unhealthy(f"{name} is too long for a health probe")
    return b"\x00" + b"".join(bytes([len(field)]) + field for field in fields)


def request(authority, service, scheme):
    """What the client says: preface, settings, and the call `Check(service)`."""
    name = service.encode()
    if len(name) > 127:
        raise Unhealthy("the service's name is too long for a health probe")
    message = b"\x0a" + bytes([len(name)]) + name if name else b""
    headers = b"".join(
        literal(*field)
        for field in [
            (":method", "POST"),
            (":scheme", scheme),
            (":path", "/grpc.health.v1.Health/Check"),
            (":authority", authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
    )
    body = b"\x00" + struct.pack(">I", len(message)) + message
    return (
        PREFACE
        + frame(SETTINGS, 0, 0, b"")
        + frame(HEADERS, END_HEADERS, 1, headers)
        + frame(DATA, END_STREAM, 1, body)
    )


class Connection:
    """A socket that is read in whole pieces and never past a deadline."""

    def __init__(self, host, port, timeout, tls):
        self.deadline = time.monotonic() + timeout
        self.socket = socket.create_connection((host, port), timeout)
        if tls:
            context = ssl.create_default_context(cafile=os.path.join(tls, "ca.pem"))
            context.check_hostname = False
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket)

    def read(self, size):
        piece = b""
        while len(piece) < size:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise Unhealthy("no answer in time")
            self.socket.settimeout(left)
            more = self.socket.recv(size - len(piece))
            if not more:
                raise Unhealthy("the connection was closed before an answer")
            piece += more
        return piece

    def frame(self):
        head = self.read(9)
        length = int.from_bytes(head[:3], "big")
        if length > LONGEST_FRAME:
            raise Unhealthy("this is no HTTP/2 server, or one that sends larger frames than allowed")
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        return head[3], head[4], stream, self.read(length)


def status_of(message):
    """Field 1 of HealthCheckResponse; absent means 0."""
    if not message:
        return 0
    if len(message) != 2 or message[0] != 0x08:
        raise Unhealthy(f"an answer that is no health: {message.hex()}")
    return message[1]


def check(host, port, service, timeout, tls):
    """The server's health as a number of the protocol."""
    connection = Connection(host, port, timeout, tls)
    authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    connection.socket.sendall(request(authority, service, "https" if tls else "http"))
    body = b""
    while True:
        kind, flags, stream, payload = connection.frame()
        if kind == SETTINGS and not flags & ACK:
            connection.socket.sendall(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            connection.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == DATA and stream == 1:
            body += payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
            if len(body) >= 5 and len(body) >= 5 + int.from_bytes(body[1:5], "big"):
                return status_of(body[5 : 5 + int.from_bytes(body[1:5], "big")])
        elif kind in (RST_STREAM, GOAWAY):
            raise Unhealthy("the server refused the call")
        if stream == 1 and kind in (DATA, HEADERS) and flags & END_STREAM:
            raise Unhealthy(f"the server does not know the service `{service}`")


def main():
    parser = argparse.ArgumentParser(description="Asks a gRPC server for its health.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("SHARDPROOF_HEALTH_PORT") or "8000"))
    parser.add_argument("--service", default="")
    parser.add_argument("--timeout", type=float, default=4.0)
    parser.add_argument("--tls", metavar="DIR", default=os.environ.get("SHARDPROOF_TLS") or None)
    options = parser.parse_args()
    try:
        health = check(options.host, options.port, options.service, options.timeout, options.tls)
    except (OSError, Unhealthy) as error:
        print(f"{options.host}:{options.port}: {error}", file=sys.stderr)
        return 1
    print(NAMES.get(health, str(health)))
    return 0 if health == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
