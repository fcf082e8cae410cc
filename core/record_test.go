package core

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

func genEnvelope(t *rapid.T) Envelope {
	str := rapid.String()
	when := rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "unset") {
			return time.Time{}
		}
		return time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "ms"))
	})
	e := Envelope{
		Topic: genTopic(t, "topic"), Key: str.Draw(t, "key"), ID: str.Draw(t, "id"),
		ContentType: str.Draw(t, "type"), Text: rapid.Bool().Draw(t, "text"), Bytes: rapid.Bool().Draw(t, "bytes"),
		Payload: rapid.SliceOf(rapid.Byte()).Draw(t, "payload"), ReplyTo: str.Draw(t, "reply"),
		Expires: when.Draw(t, "expires"), DeliverAt: when.Draw(t, "at"),
		Priority: Priority(rapid.IntRange(0, 10).Draw(t, "priority")), Guarantee: Guarantee(rapid.IntRange(0, 2).Draw(t, "guarantee")),
		Retain:    rapid.Bool().Draw(t, "retain"),
		Publisher: Publisher{Principal: str.Draw(t, "principal"), Client: str.Draw(t, "client"), Protocol: str.Draw(t, "protocol")},
		Time:      time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "time")),
	}
	e.EmptyType = e.ContentType == "" && rapid.Bool().Draw(t, "empty type")
	e.EmptyReplyTo = e.ReplyTo == "" && rapid.Bool().Draw(t, "empty reply")
	if rapid.Bool().Draw(t, "corr") {
		e.CorrelationID = rapid.SliceOf(rapid.Byte()).Draw(t, "correlation")
		if e.CorrelationID == nil {
			e.CorrelationID = []byte{}
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		e.Headers = append(e.Headers, Header{str.Draw(t, "name"), str.Draw(t, "value")})
	}
	return e
}

func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genEnvelope(t)
		prefix := rapid.SliceOf(rapid.Byte()).Draw(t, "prefix")
		buf := AppendRecord(prefix, &want)
		buf = append(buf, "rest"...)
		r, rest, err := ParseRecord(buf[len(prefix):])
		if err != nil || string(rest) != "rest" {
			t.Fatalf("rest %q: %v", rest, err)
		}
		if r.Hash != HashTopic(want.Topic) {
			t.Fatal("hash")
		}
		r.Time = want.Time.UnixMilli()
		got := Envelope{Headers: []Header{{"old", "old"}, {"old", "old"}}}
		if err := r.Envelope(&got); err != nil {
			t.Fatal(err)
		}
		if len(got.Headers) == 0 {
			got.Headers = nil
		}
		if len(got.Payload) == 0 && len(want.Payload) == 0 {
			got.Payload, want.Payload = nil, nil
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzRecord(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	e := Envelope{Topic: "a/b", Payload: []byte("p"), Key: "k", Headers: []Header{{"n", "v"}}, CorrelationID: []byte{0}, Expires: time.UnixMilli(1)}
	full := AppendRecord(nil, &e)
	f.Add(full)
	for i := range full {
		f.Add(full[:i])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, _, err := ParseRecord(b)
		if err == nil {
			var e Envelope
			err = r.Envelope(&e)
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func FuzzFrom(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	now := time.UnixMilli(1_700_000_000_000)
	for _, s := range []string{"earliest", "latest", "1042", "-100", "@2h", "@2026-11-01T08:00:00Z", "-0", "@-2h", "", "@", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		from, err := ParseFrom(s, now)
		if err != nil {
			if !errors.Is(err, ErrInvalidFrom) {
				t.Fatal(err)
			}
			return
		}
		again, err := ParseFrom(from.String(), now)
		if err != nil || again.String() != from.String() {
			t.Fatalf("%q is %q, which is %q: %v", s, from, again, err)
		}
	})
}

func TestParseFrom(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for s, want := range map[string]From{
		"earliest": Earliest, "latest": Latest, "1042": FromOffset(1042), "-100": FromLast(100), "@2h": FromTime(now.Add(-2 * time.Hour)),
	} {
		if got, err := ParseFrom(s, now); err != nil || got != want {
			t.Errorf("%q: %v %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-", "-0", "+1", "1.5", "@", "@-1h", "@yesterday", "first", "0x10", "-99999999999"} {
		if _, err := ParseFrom(s, now); !errors.Is(err, ErrInvalidFrom) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// What is outstanding behaves like a map from offsets, and its position comes
// back as it was.
func TestOutstandingIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o outstanding
		model := map[Offset]uint16{}
		offset := rapid.Map(rapid.Uint64Range(1, 300), func(n uint64) Offset { return Offset(n) })
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				at := offset.Draw(t, "at")
				if model[at] != 0 {
					t.Skip()
				}
				model[at] = uint16(len(model) + 1)
				e := outEntry{offset: at, attempts: model[at], state: entryWaiting}
				if at%3 == 0 {
					o.keep(&e, fmt.Sprint(at))
				}
				o.add(e)
			},
			"settle": func(t *rapid.T) {
				at := offset.Draw(t, "at")
				e := o.find(at)
				if (e != nil) != (model[at] != 0) {
					t.Fatalf("%d is there: %v", at, e != nil)
				}
				if e != nil {
					o.settle(e)
					delete(model, at)
				}
			},
			"": func(t *rapid.T) {
				if o.len() != len(model) {
					t.Fatalf("%d entries, want %d", o.len(), len(model))
				}
				left := []runs{{{3, 4}, {9, 300}}, nil, {{1, 2}}}
				back, err := parsePosition(appendPosition(nil, 0, 301, time.Time{}, 400, runs{{5, 7}}, left, &o, time.Hour))
				if err != nil || back.next != 301 || back.reach != 400 || back.out.len() != len(model) {
					t.Fatalf("%v: %d of %d", err, back.out.len(), len(model))
				}
				if !reflect.DeepEqual(back.left, left) || !reflect.DeepEqual(back.maybe, runs{{5, 7}}) {
					t.Fatalf("%v, want %v", back.left, left)
				}
				for _, e := range back.out.list {
					if model[e.offset] != e.attempts {
						t.Fatalf("%d has %d attempts, want %d", e.offset, e.attempts, model[e.offset])
					}
					want := ""
					if e.offset%3 == 0 {
						want = fmt.Sprint(e.offset)
					}
					if got := back.out.kept[e.offset]; got != want || (got != "") != (e.state == entryKept) {
						t.Fatalf("%d is kept for %q, want %q", e.offset, got, want)
					}
				}
			},
		})
	})
}

// Runs behave like a set of offsets.
func TestRunsAreASet(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var l runs
		model := map[Offset]bool{}
		end := Offset(1)
		t.Repeat(map[string]func(*rapid.T){
			"extend": func(t *rapid.T) {
				end += Offset(rapid.Uint64Range(0, 2).Draw(t, "skip"))
				l.append(run{end, end + 1})
				model[end] = true
				end++
			},
			"cut": func(t *rapid.T) {
				from := Offset(rapid.Uint64Range(1, uint64(end)).Draw(t, "from"))
				to := from + Offset(rapid.Uint64Range(0, 4).Draw(t, "length"))
				l.cut(from, to)
				for at := from; at < to; at++ {
					delete(model, at)
				}
			},
			"": func(t *rapid.T) {
				for at := Offset(0); at < end+2; at++ {
					r, ok := l.after(at)
					if l.has(at) != model[at] || model[at] && (!ok || r.from != at) {
						t.Fatalf("%v: %d is in: %v, want %v", l, at, l.has(at), model[at])
					}
				}
				for i, r := range l {
					if r.from >= r.to || i > 0 && l[i-1].to > r.from {
						t.Fatalf("%v is not in order", l)
					}
				}
			},
		})
	})
}
