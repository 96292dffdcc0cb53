"""What stands between client and server: a relay that goes silent, and a gateway that answers by itself."""

import socket
import struct
import threading
import time

import grpc

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


class Relay:
    """Carries TCP connections to a target."""

    def __init__(self, target):
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._silenced = []
        self._open = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def go_silent(self):
        """Carries no byte of the connections that there are any more, and closes none; new ones are carried."""
        for silent in self._open:
            silent.set()
        self._silenced, self._open = self._silenced + self._open, []

    def _accept(self):
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            other = socket.create_connection(self._target)
            silent = threading.Event()
            self._open.append(silent)
            for source, sink in ((one, other), (other, one)):
                threading.Thread(target=self._carry, args=(source, sink, silent), daemon=True).start()

    def close(self):
        self._listener.close()

    @staticmethod
    def _carry(source, sink, silent):
        try:
            while data := source.recv(65536):
                if not silent.is_set():
                    sink.sendall(data)
            if not silent.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def frame(kind, flags, stream, payload=b""):
    """An HTTP/2 frame, RFC 9113, section 4.1."""
    head = struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream)
    return head + payload


class Gateway:
    """As much of an HTTP/2 gateway as it takes to end calls by itself.

    Args:
        status: The HTTP status that it ends them with; None closes the connection instead.
        after: Seconds after which it does.
        target: A server that it hands unary calls on to before, and cancels there.
    """

    def __init__(self, status, after=0.0, target=None):
        self.calls = 0
        self._status = status
        self._after = after
        self._channel = target and grpc.insecure_channel(target)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        self._listener.close()
        if self._channel:
            self._channel.close()

    def _accept(self):
        while True:
            try:
                one, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(one,), daemon=True).start()

    def _serve(self, one):
        bodies = {}
        stream = one.makefile("rb")
        try:
            stream.read(len(PREFACE))
            # Settings and a window in which every request fits.
            one.sendall(frame(4, 0, 0, struct.pack(">HI", 4, 2**24)) + frame(8, 0, 0, struct.pack(">I", 2**24)))
            while head := stream.read(9):
                kind, flags, number = head[3], head[4], int.from_bytes(head[5:], "big")
                payload = stream.read(int.from_bytes(head[:3], "big"))
                if kind == 4 and not flags & 1:
                    one.sendall(frame(4, 1, 0))
                elif kind == 6 and not flags & 1:
                    one.sendall(frame(6, 1, 0, payload))
                elif kind == 1:
                    self.calls += 1
                    bodies[number] = b""
                elif kind == 0:
                    bodies[number] += payload
                if kind in (0, 1) and flags & 1:
                    threading.Thread(target=self._end, args=(one, number, bodies.pop(number)), daemon=True).start()
        except OSError:
            pass

    def _end(self, one, number, body):
        beyond = None
        if self._channel:
            predict = self._channel.unary_unary("/xai.v1.ExplanationService/Predict")
            beyond = predict.future(body[5:], timeout=30)
        time.sleep(self._after)
        if beyond:
            beyond.cancel()
        if self._status is None:
            one.shutdown(socket.SHUT_RDWR)
            return
        # :status and content-type as literals, RFC 7541, appendix A.
        header = b"\x08\x03" + str(self._status).encode() + b"\x0f\x10\x09text/html"
        one.sendall(frame(1, 5, number, header))
