"""Drives stomp.py: one JSON request a line on standard input, one JSON answer or
event a line on standard output."""

import base64
import itertools
import json
import sys
import threading

import stomp

TIMEOUT = 60
lock = threading.Lock()
conns = {}
receipts = itertools.count(1)


def write(o):
    with lock:
        sys.stdout.write(json.dumps(o) + "\n")
        sys.stdout.flush()


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else (data or "").encode()).decode()


class Conn(stomp.ConnectionListener):
    def __init__(self, name, host, port, headers=None):
        self.name, self.cond, self.done, self.error, self.closed = name, threading.Condition(), set(), None, False
        self.stomp = stomp.Connection12([(host, port)], heartbeats=(0, 0), auto_decode=False, reconnect_attempts_max=1)
        self.stomp.set_listener("", self)
        self.stomp.connect(wait=True, headers=headers or {})

    def on_message(self, frame):
        write({"conn": self.name, "event": "message", "headers": list(frame.headers.items()), "body": b64(frame.body)})

    def on_error(self, frame):
        with self.cond:
            self.error = frame.headers.get("message", "ERROR")
            self.cond.notify_all()
        write({"conn": self.name, "event": "error", "headers": list(frame.headers.items()), "body": b64(frame.body)})

    def on_receipt(self, frame):
        with self.cond:
            self.done.add(frame.headers["receipt-id"])
            self.cond.notify_all()

    def on_disconnected(self):
        with self.cond:
            self.closed = True
            self.cond.notify_all()
        write({"conn": self.name, "event": "closed"})

    def receipted(self, send):
        receipt = "r-%d" % next(receipts)
        send(receipt)
        with self.cond:
            if not self.cond.wait_for(lambda: receipt in self.done or self.error or self.closed, TIMEOUT):
                raise TimeoutError("no receipt")
            if receipt in self.done:
                return {}
            raise ConnectionError("ERROR %s" % self.error if self.error else "closed before the receipt")

    def close(self):
        self.stomp.disconnect()

    def drop(self):
        self.stomp.transport.disconnect_socket()


def connect(conn, **how):
    conns[conn] = Conn(conn, **how)
    return {}


def subscribe(conn, destination, id, ack="auto", headers=None):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.subscribe(destination, id, ack, headers=dict(headers or {}, receipt=r)))


def send(conn, destination, body, headers=None):
    """stomp.py takes repeats of a header as a tuple and sends headers by name."""
    c, gathered = conns[conn], {}
    for name, value in headers or []:
        had = gathered.get(name)
        gathered[name] = value if had is None else (had if isinstance(had, tuple) else (had,)) + (value,)
    return c.receipted(lambda r: c.stomp.send(destination, base64.b64decode(body), headers=dict(gathered, receipt=r)))


def unsubscribe(conn, id):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.unsubscribe(id, receipt=r))


def ack(conn, id, headers=None):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.ack(id, receipt=r, **(headers or {})))


def nack(conn, id, headers=None):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.nack(id, receipt=r, **(headers or {})))


def begin(conn, transaction):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.begin(transaction, receipt=r))


def commit(conn, transaction):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.commit(transaction, receipt=r))


def abort(conn, transaction):
    c = conns[conn]
    return c.receipted(lambda r: c.stomp.abort(transaction, receipt=r))


def close(conn):
    conns.pop(conn).close()
    return {}


def drop(conn):
    conns.pop(conn).drop()
    return {}


OPS = {
    "stomp.connect": connect,
    "stomp.subscribe": subscribe,
    "stomp.unsubscribe": unsubscribe,
    "stomp.send": send,
    "stomp.ack": ack,
    "stomp.nack": nack,
    "stomp.begin": begin,
    "stomp.commit": commit,
    "stomp.abort": abort,
    "close": close,
    "drop": drop,
}


def serve(request):
    call, op = request.pop("call"), request.pop("op")
    try:
        write({"call": call, "ok": OPS[op](**request)})
    except Exception as e:  # every failure is the test's to judge
        write({"call": call, "err": "%s: %s" % (type(e).__name__, e)})


write({"event": "ready"})
for line in sys.stdin:
    threading.Thread(target=serve, args=(json.loads(line),), daemon=True).start()
