"""A suite of stomp.py's: python3 suite.py HOST PORT VERSION. It prints the
names of what it did, and fails with the first thing that was not so."""

import queue
import sys

import stomp

host, port, version = sys.argv[1], int(sys.argv[2]), sys.argv[3]
kinds = {"1.0": stomp.Connection10, "1.1": stomp.Connection11, "1.2": stomp.Connection12}


class Listener(stomp.ConnectionListener):
    def __init__(self):
        self.frames = queue.Queue()

    def on_message(self, frame):
        self.frames.put(("MESSAGE", frame.headers, frame.body))

    def on_receipt(self, frame):
        self.frames.put(("RECEIPT", frame.headers, frame.body))

    def on_error(self, frame):
        self.frames.put(("ERROR", frame.headers, frame.body))

    def next(self, command):
        got = self.frames.get(timeout=60)
        assert got[0] == command, got
        return got


def connect(**more):
    options = {} if version == "1.0" else {"heartbeats": (60000, 60000)}
    options.update(more)
    c = kinds[version]([(host, port)], **options)
    listener = Listener()
    c.set_listener("", listener)
    c.connect("", "", wait=True)
    return c, listener


def subscribe(c, listener, destination, **headers):
    if version == "1.0":
        c.subscribe(destination, headers={"receipt": "sub"}, **headers)
    else:
        c.subscribe(destination, "sub-1", headers={"receipt": "sub"}, **headers)
    listener.next("RECEIPT")


def ack(c, headers, **more):
    if version == "1.2":
        c.ack(headers["ack"], **more)
    elif version == "1.1":
        c.ack(headers["message-id"], headers["subscription"], **more)
    else:
        c.ack(headers["message-id"], **more)


def topic():
    c, l = connect()
    subscribe(c, l, "/topic/suite/a")
    c.send("/topic/suite/a", "grüße: →", content_type="text/plain", headers={"x": "a\nb:c" if version != "1.0" else "b"})
    _, h, body = l.next("MESSAGE")
    assert body == "grüße: →" and h["content-type"] == "text/plain" and h["destination"] == "/topic/suite/a", (h, body)
    assert h["x"] == ("a\nb:c" if version != "1.0" else "b"), h
    c.disconnect()


def binary():
    c, l = connect(auto_decode=False)
    subscribe(c, l, "/topic/suite/b")
    c.send("/topic/suite/b", b"\x00\xff\x00")
    _, _, body = l.next("MESSAGE")
    assert body == b"\x00\xff\x00", body
    c.disconnect()


def acknowledge():
    c, l = connect()
    subscribe(c, l, "/queue/suite", ack="client")
    for i in range(3):
        c.send("/queue/suite", str(i))
    got = [l.next("MESSAGE") for _ in range(3)]
    ack(c, got[1][1], receipt="acked")
    l.next("RECEIPT")
    c.disconnect(receipt="bye")
    l.next("RECEIPT")
    c, l = connect()
    subscribe(c, l, "/queue/suite")
    _, h, body = l.next("MESSAGE")
    assert body == "2" and h["redelivered"] == "true", (h, body)
    c.disconnect()


def transaction():
    c, l = connect()
    subscribe(c, l, "/queue/suite.t")
    t = c.begin()
    c.send("/queue/suite.t", "never", transaction=t)
    c.abort(t)
    t = c.begin()
    c.send("/queue/suite.t", "committed", transaction=t)
    c.commit(t)
    assert l.next("MESSAGE")[2] == "committed"
    c.disconnect()


def errors():
    c, l = connect()
    c.send_frame("SEND", {"receipt": "r"}, "")
    _, h, body = l.next("ERROR")
    assert h["receipt-id"] == "r" and "destination" in body, (h, body)


for test in (topic, binary, acknowledge, transaction, errors):
    test()
    print(test.__name__)
