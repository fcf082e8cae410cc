"""Paho for Python against a broker: every version and QoS, sessions, wills,
retained messages, properties. Prints a line for each, and fails with the first
difference."""

import queue
import sys
import threading

import paho.mqtt.client as paho
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

HOST, PORT = sys.argv[1], int(sys.argv[2])
WAIT = 60


class Client:
    """A client with its callbacks turned into queues."""

    def __init__(self, name, version, clean=True, expiry=None, will=None):
        args = {} if version == paho.MQTTv5 else {"clean_session": clean}
        self.c = paho.Client(client_id=name, protocol=version, **args)
        self.c.max_inflight_messages_set(100)
        self.messages = queue.Queue()
        self.answers = queue.Queue()
        self.c.on_message = lambda c, u, m: self.messages.put(m)
        if version == paho.MQTTv5:
            self.c.on_connect = lambda c, u, flags, rc, p: self.answers.put((flags["session present"], rc, p))
            self.c.on_subscribe = lambda c, u, mid, codes, p: self.answers.put([int(x.value) for x in codes])
            self.c.on_disconnect = lambda c, u, rc, p=None: self.answers.put(("gone", rc))
        else:
            self.c.on_connect = lambda c, u, flags, rc: self.answers.put((flags["session present"], rc, None))
            self.c.on_subscribe = lambda c, u, mid, codes: self.answers.put(list(codes))
        if will:
            self.c.will_set(*will)
        kw = {}
        if version == paho.MQTTv5:
            kw["clean_start"] = clean
            if expiry is not None:
                kw["properties"] = Properties(PacketTypes.CONNECT)
                kw["properties"].SessionExpiryInterval = expiry
        self.c.connect(HOST, PORT, 300, **kw)
        self.c.loop_start()
        self.session, rc, self.properties = self.answers.get(timeout=WAIT)
        assert rc == 0, rc

    def subscribe(self, *args, **kw):
        self.c.subscribe(*args, **kw)
        return self.answers.get(timeout=WAIT)

    def publish(self, *args, **kw):
        info = self.c.publish(*args, **kw)
        info.wait_for_publish(WAIT)
        assert info.is_published()

    def message(self):
        return self.messages.get(timeout=WAIT)

    def close(self):
        self.c.disconnect()
        self.c.loop_stop()

    def kill(self):
        self.c.loop_stop()
        self.c._sock_close()


def load(version, qos):
    topic = "load/%d/%d" % (version, qos)
    sub = Client("sub-%d-%d" % (version, qos), version)
    assert sub.subscribe(topic, qos) == [qos]
    pub = Client("pub-%d-%d" % (version, qos), version)
    n = 500
    infos = [pub.c.publish(topic, str(i), qos) for i in range(n)]
    for info in infos:
        info.wait_for_publish(WAIT)
    for i in range(n):
        m = sub.message()
        assert (m.topic, m.payload.decode(), m.qos) == (topic, str(i), qos), (i, m.payload, m.qos)
    assert sub.messages.empty()
    sub.close()
    pub.close()


def session(version):
    name = "session-%d" % version
    topic = "session/%d" % version
    first = Client(name, version, clean=False, expiry=3600)
    assert not first.session
    assert first.subscribe(topic, 2) == [2]
    first.close()
    pub = Client("session-pub-%d" % version, version)
    for i in range(50):
        pub.publish(topic, str(i), 2)
    again = Client(name, version, clean=False, expiry=3600)
    assert again.session
    for i in range(50):
        m = again.message()
        assert m.payload.decode() == str(i), (i, m.payload)
    again.close()
    new = Client(name, version, clean=True)
    assert not new.session
    pub.publish(topic, "x", 1)
    new.close()
    pub.close()


def will(version):
    topic = "will/%d" % version
    sub = Client("will-sub-%d" % version, version)
    sub.subscribe(topic, 1)
    dying = Client("will-%d" % version, version, will=(topic, "gone", 1, True))
    dying.kill()
    m = sub.message()
    assert (m.payload, m.qos, m.retain) == (b"gone", 1, False), m
    late = Client("will-late-%d" % version, version)
    late.subscribe(topic, 0)
    m = late.message()
    assert (m.payload, m.retain) == (b"gone", True), m
    sub.close()
    late.close()


def properties():
    sub = Client("properties", paho.MQTTv5)
    p = Properties(PacketTypes.SUBSCRIBE)
    p.SubscriptionIdentifier = 99
    assert sub.subscribe("p/#", options=SubscribeOptions(qos=2, retainAsPublished=True), properties=p) == [2]
    p = Properties(PacketTypes.PUBLISH)
    p.ContentType = "text/plain"
    p.ResponseTopic = "re/ply"
    p.CorrelationData = b"\x00\x01"
    p.PayloadFormatIndicator = 1
    p.MessageExpiryInterval = 60
    p.UserProperty = [("b", "1"), ("a", "2"), ("b", "3")]
    sub.publish("p/x", "grüße".encode(), 2, True, properties=p)
    m = sub.message()
    q = m.properties
    assert (m.retain, q.ContentType, q.ResponseTopic, q.CorrelationData, q.PayloadFormatIndicator) == \
        (True, "text/plain", "re/ply", b"\x00\x01", 1), q
    assert q.UserProperty[:3] == [("b", "1"), ("a", "2"), ("b", "3")], q.UserProperty
    assert q.SubscriptionIdentifier == [99] and 55 <= q.MessageExpiryInterval <= 60
    sub.close()


def takeover():
    old = Client("twice", paho.MQTTv5)
    old.c.reconnect_delay_set(60, 120)
    new = Client("twice", paho.MQTTv5)
    what, rc = old.answers.get(timeout=WAIT)
    assert (what, int(getattr(rc, "value", rc))) == ("gone", 0x8E), (what, rc)
    old.c.loop_stop()
    new.close()


def replay():
    pub = Client("replay-pub", paho.MQTTv311)
    for i in range(10):
        pub.publish("history", str(i), 1)
    old = Client("replay-311", paho.MQTTv311)
    assert old.subscribe("$replay/earliest/history", 1) == [1]
    assert [old.message().payload.decode() for _ in range(10)] == [str(i) for i in range(10)]
    new = Client("replay-5", paho.MQTTv5)
    p = Properties(PacketTypes.SUBSCRIBE)
    p.UserProperty = [("from", "-3")]
    assert new.subscribe("history", options=SubscribeOptions(qos=1), properties=p) == [1]
    assert [new.message().payload.decode() for _ in range(3)] == ["7", "8", "9"]
    for c in (pub, old, new):
        c.close()


for v in (paho.MQTTv31, paho.MQTTv311, paho.MQTTv5):
    for q in (0, 1, 2):
        load(v, q)
        print("load: version", v, "QoS", q)
for v in (paho.MQTTv311, paho.MQTTv5):
    session(v)
    will(v)
    print("session and will: version", v)
properties()
takeover()
replay()
print("properties, takeover, replay")
