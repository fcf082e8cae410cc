#!/usr/bin/env python3
"""Reads the log of a data directory, as docs/disk-format.md describes it.

A second reader, which shares no code with the first: it was written from the
page alone and needs nothing but Python. It prints every record as a line of
JSON, then what was lost, and with --state the state that the changes in the
log make. Indexes, where there are any, are compared with what the segments say, and
what that state counts of bounded queues with the records.

    reader.py [--state] DIRECTORY
"""

import argparse
import base64
import json
import os
import re
import struct
import sys


def crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ (0x82F63B78 if n & 1 else 0)
        table.append(n)
    return table


CRC = crc32c_table()


def crc32c(*parts):
    c = 0xFFFFFFFF
    for part in parts:
        for b in part:
            c = CRC[(c ^ b) & 0xFF] ^ c >> 8
    return c ^ 0xFFFFFFFF


def fnv1a(data):
    h = 0xCBF29CE484222325
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


class Bad(Exception):
    pass


class Bytes:
    """Takes numbers and texts off bytes, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if self.at + n > len(self.data):
            raise Bad("ends early")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, size):
        return int.from_bytes(self.take(size), "little")

    def uvarint(self):
        value = shift = 0
        while True:
            b = self.take(1)[0]
            value |= (b & 0x7F) << shift
            if b < 0x80:
                return value
            shift += 7

    def text(self):
        return self.take(self.uvarint())

    def rest(self):
        return self.take(len(self.data) - self.at)


def unpack(block, raw):
    """Unpacks an S2 block."""
    b = Bytes(block)
    if b.uvarint() != raw:
        raise Bad("a block of another length than its frame says")
    out = bytearray()
    offset = 0
    while b.at < len(block):
        tag = b.take(1)[0]
        kind, upper = tag & 3, tag >> 2
        if kind == 0:
            length = upper + 1 if upper < 60 else b.number(upper - 59) + 1
            out += b.take(length)
            continue
        if kind == 1:
            near = tag >> 5 << 8 | b.take(1)[0]
            length = tag >> 2 & 7
            if near:
                offset = near
            elif length == 5:
                length = b.number(1) + 4
            elif length == 6:
                length = b.number(2) + (1 << 8)
            elif length == 7:
                length = b.number(3) + (1 << 16)
            length += 4
        else:
            offset = b.number(2 if kind == 2 else 4)
            length = upper + 1
        if not 0 < offset <= len(out):
            raise Bad("a copy from before the block")
        for _ in range(length):
            out.append(out[-offset])
    if len(out) != raw:
        raise Bad("a block that unpacks to another length")
    return bytes(out)


PACKED, MORE, CONTINUED, OPENED, CLOSED, SPARSE = 1, 2, 4, 8, 16, 32


class Segment:
    def __init__(self, path, name):
        with open(os.path.join(path, name), "rb") as f:
            self.data = f.read()
        d = self.data
        self.name = name
        if d[:8] != b"SluiceLg":
            raise Bad(name + " is no segment")
        version, checksum, self.generation, self.sequence, self.through, copied = struct.unpack("<IIQQQB", d[8:41])
        if version != 1:
            raise Bad("%s has version %d" % (name, version))
        if checksum != crc32c(d[:12], d[16:48]) or self.sequence != int(name[:16], 16):
            raise Bad(name + " has a damaged header")
        if any(d[41:4096]):
            raise Bad(name + " has a first page that is not zeros")
        self.copied = copied == 1

    def frames(self):
        at = 4096
        jumped = False
        while at + 72 <= len(self.data):
            frame = Frame.parse(self, at)
            if frame:
                frame.jumped, jumped = jumped, False
                yield frame
                at += frame.size
            else:
                at += 8
                jumped = True


class Frame:
    @staticmethod
    def parse(segment, at):
        d = segment.data
        f = Frame()
        (magic, checksum, generation, f.commit, f.synced, f.base, f.time, f.count, stored, raw, prefix,
         body_checksum, f.flags) = struct.unpack_from("<IIQQQQQIIIIII", d, at)
        if magic != 0x46584C53 or generation != segment.generation or f.flags >> 6:
            return None
        if checksum != crc32c(d[at + 8 : at + 72]):
            return None
        body = d[at + 72 : at + 72 + stored]
        if len(body) < stored or crc32c(body) != body_checksum:
            return None
        if f.flags & PACKED:
            body = unpack(body, raw)
        if len(body) != raw:
            return None
        f.segment, f.at, f.size = segment, at, (72 + stored + 7) // 8 * 8
        if any(d[at + 72 + stored : at + f.size]):
            raise Bad("%s, byte %d: a frame is not filled up with zeros" % (segment.name, at))
        f.prefix, f.body = body[:prefix], body[prefix:]
        return f

    @property
    def end(self):
        return self.synced if self.flags & SPARSE else self.base + self.count

    def places(self):
        if not self.flags & SPARSE:
            for i in range(self.count):
                yield self.base + i, self.time
            return
        b = Bytes(self.prefix)
        offset, time = self.base, self.time
        for _ in range(self.count):
            offset += b.uvarint()
            time += b.uvarint()
            yield offset, time

    def records(self):
        b = Bytes(self.body)
        for offset, time in self.places():
            size = b.number(4)
            record = Bytes(b.take(size))
            hash = record.number(8)
            topic = record.take(record.number(2))
            if hash != fnv1a(topic):
                raise Bad("offset %d: the hash is not the topic's" % offset)
            yield offset, topic, size + 4, envelope(offset, time, topic, record)
        if b.rest():
            raise Bad("bytes behind the records of a frame")

    def lost(self):
        """The ranges that the first frame of a copied segment says were lost."""
        b, at = Bytes(self.prefix), self.base
        while b.at < len(self.prefix):
            start = at + b.uvarint()
            at = start + b.uvarint()
            yield start, at

    def changes(self):
        if self.flags & (OPENED | SPARSE) or not self.prefix:
            return
        b = Bytes(self.prefix)
        for _ in range(b.uvarint()):
            kind = b.take(1)[0]
            key = b.text()
            if kind == 0:
                yield key, None
                continue
            value = b.text()
            if kind == 2:
                value += (self.base + b.uvarint() - 1).to_bytes(8, "big")
            elif kind != 1:
                raise Bad("a change of kind %d" % kind)
            yield key, value
        if b.rest():
            raise Bad("bytes behind the changes of a frame")


def envelope(offset, time, topic, body):
    e = {"offset": offset, "time": time, "topic": topic.decode()}
    fields = body.uvarint()
    if fields & 3:
        e["guarantee"] = fields & 3
    if fields & 4:
        e["retain"] = True
    if fields & 8:
        e["text"] = True
    if fields >> 17 & 1:
        e["bytes"] = True

    def text():
        return body.text().decode()

    def headers():
        return [[text(), text()] for _ in range(body.uvarint())]

    def encoded():
        return base64.b64encode(body.text()).decode()

    def schedule():
        return [text(), body.uvarint(), body.uvarint(), body.uvarint() - 1, body.uvarint() - 1]

    for bit, name, read in (
        (4, "client", text),
        (5, "protocol", text),
        (6, "principal", text),
        (7, "key", text),
        (8, "id", text),
        (9, "headers", headers),
        (10, "content_type", text),
        (11, "reply_to", text),
        (12, "correlation_id", encoded),
        (13, "expires", body.uvarint),
        (14, "deliver_at", body.uvarint),
        (15, "priority", lambda: body.take(1)[0] - 1),
        (16, "schedule", schedule),
    ):
        if fields >> bit & 1:
            e[name] = read()
    if fields >> 18:
        raise Bad("offset %d: a field that is not known" % offset)
    e["payload"] = base64.b64encode(body.rest()).decode()
    return e


class Log:
    def __init__(self, directory):
        path = os.path.join(directory, "log")
        names = sorted(os.listdir(path))
        segments = [Segment(path, n) for n in names if re.fullmatch("[0-9a-f]{16}\\.log", n)]
        self.segments = []
        for s in segments:
            if not self.segments or s.sequence > self.segments[-1].through:
                self.segments.append(s)
        asides = {int(n[:16], 16) for n in names if re.fullmatch("[0-9a-f]{16}\\.log\\.bad", n)}
        self.taken = []
        self.gaps = []
        self.decide(asides)
        for s in self.segments:
            name = s.name.replace(".log", ".index")
            if name in names:
                check_index(os.path.join(path, name), s, [f for f in self.taken if f.segment is s])

    def found(self):
        """All frames, but for what a segment has beyond what was durable when the
        next one was begun."""
        found, begun = [], None
        for s in reversed(self.segments):
            frames = list(s.frames())
            if not s.copied:
                kept = [f for f in frames if begun is None or f.commit <= begun]
                begun = frames[0].synced if frames else begun
                frames = kept
            found = [(s, f) for f in frames] + found
        return found

    def decide(self, asides):
        """Which frames are the log's, by the rules under "Reading a log"."""
        frames = self.found()
        logged = [f for s, f in frames if not s.copied]
        durable = max([f.synced for f in logged if not f.flags & SPARSE] + [0])
        void = [(f.synced, f.commit) for f in logged if f.flags & OPENED]
        whole = self.whole_commits(logged, durable)
        last, next, before = 0, 1, 0
        segment = None
        for s, f in frames:
            if s is not segment:
                if before + 1 < s.sequence and before + 1 not in asides:
                    next = None  # retention removed what stands before it
                segment, before = s, s.through
            if s.copied:
                if f.jumped and next is not None and f.base > next:
                    self.gaps.append((next, f.base))
                if f.flags & SPARSE and not f.count:
                    self.gaps += list(f.lost())
                    if next is not None and f.base > next:
                        self.gaps.append((next, f.base))
                self.taken.append(f)
                last, next = max(last, f.commit), f.end
                continue
            if f.flags & OPENED:
                end, lost = struct.unpack("<QQ", f.prefix)
                if next is not None and end > next:
                    self.gaps.append((next, end))
                if lost > end:
                    self.gaps.append((end, lost))
                last, next = f.commit, f.end
                self.taken.append(f)
                continue
            if any(after < f.commit < opened for after, opened in void):
                continue
            if f.commit > durable and f.commit not in whole:
                continue
            if f.commit < last or next is not None and f.base < next:
                continue  # left behind by a write that failed
            if next is not None and f.base > next:
                self.gaps.append((next, f.base))
            last, next = f.commit, f.end
            self.taken.append(f)

    @staticmethod
    def whole_commits(frames, durable):
        """The commits behind the durable ones that are there without a break."""
        commits = {}
        for f in frames:
            commits.setdefault(f.commit, []).append(f)
        whole = set()
        n = durable + 1
        while n in commits:
            c = commits[n]
            if c[0].flags & CONTINUED or c[-1].flags & MORE or any(f.time != c[0].time for f in c):
                break
            whole.add(n)
            n += 1
        return whole

    def state(self):
        state = {}
        for f in self.taken:
            for key, value in f.changes():
                if value is None:
                    state.pop(key, None)
                else:
                    state[key] = value
        return state


def leads(filters, topic):
    """Whether one of a queue's filters matches a topic."""

    def match(pattern, levels):
        if not pattern:
            return not levels
        if pattern == ["#"]:
            return True
        return bool(levels) and pattern[0] in ("+", levels[0]) and match(pattern[1:], levels[1:])

    return any(match(f.split("/"), topic.split("/")) for f in filters)


def check_counts(log, state):
    """Compares what the state counts of bounded queues with the records."""
    if log.gaps:
        return  # of what is lost it says too much
    for key, value in state.items():
        if not key.startswith(b"n/"):
            continue
        name = key[2:].decode()
        bindings = json.loads(state[b"q/" + key[2:]])["bindings"]
        if any("exchange" in b or "where" in b or "until" in b for b in bindings):
            raise Bad("the queue %s has bindings that this reader does not count" % name)
        b = Bytes(value)
        if b.number(1) != 1:
            raise Bad("what leads to the queue %s is of another version" % name)
        line = "".join('%s "" "" "" %d 0\n' % (json.dumps(x["filter"]), x["from"]) for x in bindings)
        stamp = b.number(8)
        if stamp != fnv1a(line.encode()):
            raise Bad("what leads to the queue %s was counted under other bindings" % name)
        start = b.uvarint()
        end = start + b.uvarint()
        grain = b.uvarint()
        said, part = {}, 0
        for _ in range(b.uvarint()):
            part += b.uvarint()
            said[part] = (b.uvarint(), b.uvarint())
        if b.rest():
            raise Bad("bytes behind the parts of the queue %s" % name)
        there = {}
        for f in log.taken:
            for offset, topic, _, e in f.records():
                mine = [x["filter"] for x in bindings if x["from"] <= offset]
                if not start <= offset < end or not leads(mine, e["topic"]):
                    continue
                size = 32 + len(topic) + len(base64.b64decode(e["payload"])) + len(base64.b64decode(e.get("correlation_id", "")))
                size += sum(len(e.get(x, "").encode()) for x in ("key", "content_type", "reply_to"))
                size += sum(len(n.encode()) + len(v.encode()) + 4 for n, v in e.get("headers", []))
                count, total = there.get(offset // grain, (0, 0))
                there[offset // grain] = (count + 1, total + size)
        if said != there:
            raise Bad("of what leads to the queue %s the state says %s, the log %s" % (name, said, there))


def check_index(path, segment, frames):
    """Compares an index with the records of its segment."""
    with open(path, "rb") as f:
        d = f.read()
    version, checksum = struct.unpack_from("<II", d, 8)
    if d[:8] != b"SluiceIx" or version != 1 or checksum != crc32c(d[:12], d[16:136]):
        raise Bad(path + " has a damaged header")
    (generation, size, _, first, end, _, _, last_change, first_time, last_time, records, blocks, gaps, topics,
     names_length, postings_length, body_checksum, zero) = struct.unpack_from("<QQQQQQQQQQIIIIQQII", d, 16)
    if body_checksum != crc32c(d[136:]) or zero:
        raise Bad(path + " fails its checksum")
    want = {}
    times = []
    for f in frames:
        for offset, topic, length, e in f.records():
            offsets, total = want.get(topic, ([], 0))
            want[topic] = (offsets + [offset], total + length)
            times.append(e["time"])
    b = Bytes(d[136:])
    table = [(b.number(8), b.number(8), b.number(8)) for _ in range(blocks)]
    for _ in range(gaps):
        if b.number(8) >= b.number(8) or b.number(8) > 1:
            raise Bad(path + " has a gap that is none")
    entries = [(b.number(8), b.number(8), b.number(8), b.number(4), b.number(4)) for _ in range(topics)]
    names, postings = b.take(names_length), b.take(postings_length)
    if b.rest():
        raise Bad(path + " has bytes behind its sections")
    have = {}
    for at, total, posts, count, length in entries:
        p, offset, offsets = Bytes(postings[posts:]), first, []
        for _ in range(count):
            offset += p.uvarint()
            offsets.append(offset)
        have[names[at : at + length]] = (offsets, total)
    if list(have) != sorted(have):
        raise Bad(path + " has topics that are not in order")
    starts = {f.at: f for f in frames}
    for base, time, at in table:
        if at not in starts or starts[at].base != base or starts[at].time != time:
            raise Bad("%s has a block at byte %d where no frame is" % (path, at))
    changed = max([f.commit for f in frames if any(True for _ in f.changes())] + [0])
    said = (generation, have, records, last_change)
    if said != (segment.generation, want, len(times), changed):
        raise Bad(path + " does not say what its segment says")
    last = max([f.time for f in frames] if segment.copied else times, default=0)
    if times and (first_time, last_time) != (min(times), last):
        raise Bad(path + " has other times than its segment")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--state", action="store_true")
    arguments.add_argument("directory")
    a = arguments.parse_args()
    try:
        log = Log(a.directory)
        for f in log.taken:
            for _, _, _, e in f.records():
                print(json.dumps(e, ensure_ascii=False))
        for start, end in log.gaps:
            print(json.dumps({"lost": [start, end]}))
        if a.state:
            state = log.state()
            check_counts(log, state)
            for key, value in sorted(state.items()):
                print(json.dumps({"key": base64.b64encode(key).decode(), "value": base64.b64encode(value).decode()}))
    except Bad as err:
        sys.exit("reader.py: %s" % err)


if __name__ == "__main__":
    main()
