"""Drives Paho's MQTT client: one JSON request a line on standard input, one JSON
answer or event a line on standard output."""

import base64
import json
import socket
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

TIMEOUT = 60
lock = threading.Lock()
conns = {}


def write(o):
    with lock:
        sys.stdout.write(json.dumps(o) + "\n")
        sys.stdout.flush()


def b64(data):
    return base64.b64encode(bytes(data)).decode()


class Waits:
    """What requests wait for, by packet id or by name."""

    def __init__(self):
        self.cond = threading.Condition()
        self.done = {}
        self.closed = False

    def tell(self, key, value):
        with self.cond:
            self.done[key] = value
            self.cond.notify_all()

    def close(self):
        with self.cond:
            self.closed = True
            self.cond.notify_all()

    def wait(self, key):
        with self.cond:
            if not self.cond.wait_for(lambda: key in self.done or self.closed, TIMEOUT):
                raise TimeoutError("no answer to %r" % (key,))
            if key not in self.done:
                raise ConnectionError("closed before the answer to %r" % (key,))
            return self.done.pop(key)


class Conn:
    def __init__(self, name, host, port, clientId="", clean=True, version=5, sessionExpiry=None, username=None,
                 password=None, will=None, receiveMaximum=None, ca=None, cert=None, key=None, path=None):
        self.name, self.waits, self.hold = name, Waits(), threading.Event()
        self.hold.set()  # cleared: messages are not acknowledged
        v5 = version == 5
        self.v5 = v5
        kwargs = {} if v5 else {"clean_session": clean}
        c = self.client = mqtt.Client(client_id=clientId, protocol=mqtt.MQTTv5 if v5 else mqtt.MQTTv311,
                                      reconnect_on_failure=False, transport="websockets" if path else "tcp", **kwargs)
        if path:
            c.ws_set_options(path)
        if username is not None:
            c.username_pw_set(username, password)
        if ca:
            c.tls_set(ca, cert, key)
        if will:
            c.will_set(will["topic"], will["payload"], will["qos"], will["retain"], properties=self.will(will) if v5 else None)
        c.max_inflight_messages_set(1024)
        c.on_connect = lambda _c, _u, flags, rc, *p: self.waits.tell("connect", (int(rc.value if v5 else rc), flags))
        c.on_subscribe = lambda _c, _u, mid, codes, *p: self.waits.tell(("sub", mid), [int(getattr(x, "value", x)) for x in codes])
        self.note_refusals(c)
        c.on_publish = lambda _c, _u, mid: self.waits.tell(("pub", mid), self.refusals.pop(mid, 0))
        c.on_unsubscribe = lambda _c, _u, mid, *_: self.waits.tell(("unsub", mid), True)
        c.on_message = self.message
        c.on_disconnect = self.disconnected
        connect = {}
        if v5:
            p = Properties(PacketTypes.CONNECT)
            if sessionExpiry is not None:
                p.SessionExpiryInterval = sessionExpiry
            if receiveMaximum is not None:
                p.ReceiveMaximum = receiveMaximum
            connect = {"clean_start": clean, "properties": p}
        c.connect(host, port, keepalive=60, **connect)
        c.loop_start()
        code, flags = self.waits.wait("connect")
        if code != 0:
            raise ConnectionError("CONNACK %d" % code)
        self.sessionPresent = bool(flags["session present"])

    @staticmethod
    def will(will):
        p = Properties(PacketTypes.WILLMESSAGE)
        p.WillDelayInterval = will.get("delay", 0)
        p.UserProperty = [("from", "the will")]
        return p

    def disconnected(self, *_):
        self.waits.close()
        write({"conn": self.name, "event": "closed"})

    def message(self, _client, _user, m):
        p = getattr(m, "properties", None)
        properties = None
        if p is not None:
            correlation = getattr(p, "CorrelationData", None)
            properties = {
                "contentType": getattr(p, "ContentType", None),
                "responseTopic": getattr(p, "ResponseTopic", None),
                "correlationData": None if correlation is None else b64(correlation),
                "messageExpiryInterval": getattr(p, "MessageExpiryInterval", None),
                "payloadFormatIndicator": getattr(p, "PayloadFormatIndicator", None),
                "userProperties": getattr(p, "UserProperty", []),
                "subscriptionIds": getattr(p, "SubscriptionIdentifier", []),
            }
        write({"conn": self.name, "event": "message", "topic": m.topic, "payload": b64(m.payload),
               "qos": m.qos, "retain": bool(m.retain), "dup": bool(m.dup), "properties": properties})
        self.hold.wait()

    def subscribe(self, filters, qos, userProperties=None, subscriptionId=None, **options):
        properties = Properties(PacketTypes.SUBSCRIBE)
        if userProperties:
            properties.UserProperty = [tuple(p) for p in userProperties]
        if subscriptionId:
            properties.SubscriptionIdentifier = subscriptionId
        if self.v5:
            _, mid = self.client.subscribe([(f, SubscribeOptions(qos=qos, **options)) for f in filters], properties=properties)
        else:
            _, mid = self.client.subscribe([(f, qos) for f in filters])
        codes = self.waits.wait(("sub", mid))
        if any(c >= 0x80 for c in codes):
            raise PermissionError("SUBACK %r" % codes)
        return {"granted": codes}

    def unsubscribe(self, filter):
        _, mid = self.client.unsubscribe(filter)
        self.waits.wait(("unsub", mid))
        return {}

    def note_refusals(self, c):
        """Paho 1.6 does not hand on the reason code of a PUBACK."""
        self.refusals = {}
        handle = c._handle_pubackcomp

        def noting(kind):
            packet = c._in_packet["packet"]
            if kind == "PUBACK" and len(packet) > 2 and packet[2] != 0:
                self.refusals[packet[0] << 8 | packet[1]] = packet[2]
            return handle(kind)

        c._handle_pubackcomp = noting

    def publish(self, topic, payload, qos, retain=False, properties=None):
        p = None
        if self.v5:
            p = Properties(PacketTypes.PUBLISH)
            for name, value in (properties or {}).items():
                if value is None:
                    continue
                if name == "correlationData":
                    value = base64.b64decode(value)
                if name == "userProperties":
                    name, value = "userProperty", [tuple(pair) for pair in value]
                setattr(p, name[0].upper() + name[1:], value)
        info = self.client.publish(topic, base64.b64decode(payload), qos, retain, p)
        return {"code": self.waits.wait(("pub", info.mid))}

    def close(self):
        if self.hold.is_set():
            # The PUBACKs of all messages that were told of are out before the
            # UNSUBACK is read, as one thread does both.
            _, mid = self.client.unsubscribe("never subscribed to")
            self.waits.wait(("unsub", mid))
        self.client.disconnect()
        self.hold.set()
        self.client.loop_stop()

    def drop(self):
        self.client.on_disconnect = None
        sock = self.client.socket()
        if sock is not None:
            sock.shutdown(socket.SHUT_RDWR)
        self.hold.set()  # what it acknowledges now goes nowhere
        self.client.loop_stop()


def connect(conn, **how):
    conns[conn] = c = Conn(conn, **how)
    return {"sessionPresent": c.sessionPresent}


def hold(conn):
    conns[conn].hold.clear()
    return {}


def close(conn):
    conns.pop(conn).close()
    return {}


def drop(conn):
    conns.pop(conn).drop()
    return {}


OPS = {
    "mqtt.connect": connect,
    "mqtt.hold": hold,
    "mqtt.subscribe": lambda conn, **how: conns[conn].subscribe(**how),
    "mqtt.unsubscribe": lambda conn, **how: conns[conn].unsubscribe(**how),
    "mqtt.publish": lambda conn, **how: conns[conn].publish(**how),
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
