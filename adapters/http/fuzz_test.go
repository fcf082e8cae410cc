package http

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	nethttp "net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

// A path that is taken is decoded once, and encoded again it is taken as the
// same topic.
func FuzzPath(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, s := range []string{"a/b", "a//b", "/", "a%20b", "a%2Fb", "a%252Fb", "%00", "%ff", "a/%23", "a/%2B", "a/+", "%C5%BC", "a\"%2f", "a?b", ".."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI("/t/" + s)
		if err != nil {
			return
		}
		topic, err := topicOf(&nethttp.Request{URL: u}, "/t/")
		if err != nil {
			if problemOf(err).status != 400 {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		path, _, _ := strings.Cut("/t/"+s, "?")
		if want, err := url.PathUnescape(path); err != nil || want != "/t/"+topic {
			t.Fatalf("%q is the topic %q, decoded once it is %q", s, topic, want)
		}
		if strings.Count(path, "/") != strings.Count(topic, "/")+2 {
			t.Fatalf("%q has not as many levels as %q", path, topic)
		}
		again, err := url.ParseRequestURI("/t/" + escapeLevels(topic))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := topicOf(&nethttp.Request{URL: again}, "/t/"); got != topic || err != nil {
			t.Fatalf("%q encoded again is %q: %v", topic, got, err)
		}
	})
}

// Any line is a message or a problem; and what it is as a message is what it
// is again when written as one and read back.
func FuzzLine(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, s := range []string{
		`{}`, `{"d":"x"}`, `{"t":"a/b","d":{"x":[1,2]},"h":{"a":"b"}}`, `{"b":"AAH/"}`, `{"d":1e5,"type":"a/b+json"}`,
		`{"h":[["a","1"],["a","2"]],"corr":"c","reply":"r","key":"k","prio":3,"ttl":1000,"id":"i"}`, `{"corr64":"/w=="}`, `{"d":"\ud800"}`,
		`{"d":null}`, `{"D":"x","d":"y"}`, `[]`, `{"d":"a"}{"d":"b"}`, `{"delay":5,"durable":false,"retain":true}`,
		`{"d":"plain","key":"k","retain":true,"prio":1}`, `{"d":"","retain":true}`, "{\"d\":\"x\"}\x00", ` { "t" : "a" , "d":"ż","type":"x","id":"i","reply":"r" } `,
	} {
		f.Add([]byte(s))
	}
	now := time.UnixMilli(1_800_000_000_000)
	f.Fuzz(func(t *testing.T, data []byte) {
		var d lineDecoder
		var e core.Envelope
		if err := d.decode(bytes.Clone(data), "topic", now, &e); err != nil {
			if problemOf(err).status != 400 {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		var any core.Envelope
		if err := d.decodeAny(data, "topic", now, &any, nil); err != nil {
			t.Fatalf("%q is taken the short way, the long way says %v", data, err)
		}
		if got, want := fmt.Sprintf("%+v", e), fmt.Sprintf("%+v", any); got != want {
			t.Fatalf("%q is %s the short way and %s the long way", data, got, want)
		}
		out := appendMessage(nil, &core.Delivery{Envelope: &e, Offset: 7, Attempt: 2}, nil, now)
		if !json.Valid(out) || bytes.ContainsAny(out, "\r\n") {
			t.Fatalf("%q became %q", data, out)
		}
		var d2 lineDecoder
		var e2 core.Envelope
		if err := d2.decode(out, "other", now, &e2); err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		e2.DeliverAt, e2.Guarantee = e.DeliverAt, e.Guarantee // only on the way in
		if got, want := fmt.Sprintf("%+v", e2), fmt.Sprintf("%+v", e); got != want {
			t.Fatalf("%q became %q: %s, want %s", data, out, got, want)
		}
	})
}

// Whatever stands in a message, its event is one event with its data.
func FuzzEvent(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add("a/b", []byte("text"), true)
	f.Add("a\n\nid: 9", []byte("x\n\nevent: error\r\ndata: y"), true)
	f.Add("t", []byte("\xff\x00"), false)
	f.Add("t", []byte(""), false)
	f.Fuzz(func(t *testing.T, topic string, payload []byte, topics bool) {
		e := eventEncoder{topics: topics}
		d := core.Delivery{Envelope: &core.Envelope{Topic: topic, Payload: payload}, Offset: 42}
		name, id, data, rest := parseEvent(string(e.append(nil, &d, time.Time{})))
		if rest != "" || id != "42" {
			t.Fatalf("more than one event, or id %q; left %q", id, rest)
		}
		got := []byte(data)
		if name == "binary" {
			var err error
			if got, err = base64.StdEncoding.DecodeString(data); err != nil {
				t.Fatal(err)
			}
		} else if name != "" {
			t.Fatalf("an event named %q", name)
		}
		if !bytes.Equal(got, payload) {
			t.Fatalf("%q came as %q", payload, got)
		}
		if !utf8.ValidString(topic) {
			return
		}
		_, id, data, rest = parseEvent(string((&eventEncoder{json: true}).append(nil, &d, time.UnixMilli(1))))
		if rest != "" || id != "42" || !json.Valid([]byte(data)) {
			t.Fatalf("as JSON %q, left %q", data, rest)
		}
	})
}

// parseEvent reads the first event of a stream as the HTML standard has it
// (9.2.6), with its own three kinds of line end.
func parseEvent(s string) (name, id, data, rest string) {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\r", "\n")
	var buf strings.Builder
	for {
		line, after, more := strings.Cut(s, "\n")
		s = after
		if line == "" || !more {
			return name, id, strings.TrimSuffix(buf.String(), "\n"), s
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch field {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			buf.WriteString(value + "\n")
		}
	}
}

// What an envelope's headers are on an answer is what they are on a request
// with that answer's header.
func FuzzFields(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	f.Add("a", "1", "b", "2", "key", []byte("corr"))
	f.Add("B", "1\r\nX: y", "b", " 2", "ż", []byte{0xff})
	f.Add("", "", "ce-id", "\x7f", "a\n", []byte(""))
	f.Add("traceparent", "x", "a", "y", "", []byte(" "))
	s := &Server{metrics: testMetrics()}
	f.Fuzz(func(t *testing.T, n1, v1, n2, v2, key string, corr []byte) {
		for _, v := range []string{n1, v1, n2, v2, key} {
			if !utf8.ValidString(v) {
				return
			}
		}
		in := core.Envelope{Topic: "t", Key: key, CorrelationID: corr, Headers: []core.Header{{Name: n1, Value: v1}, {Name: n2, Value: v2}}}
		h := make(nethttp.Header)
		s.writeFields(h, &core.Delivery{Envelope: &in}, time.Now())
		sent := make(nethttp.Header)
		for name, values := range h {
			for _, v := range values {
				if strings.ContainsAny(v, "\r\n\x00") || strings.TrimSpace(v) != v {
					t.Fatalf("the header %q: %q", name, v)
				}
				sent.Add(name, v) // as a server reads them
			}
		}
		var out core.Envelope
		if err := readFields(&nethttp.Request{Header: sent}, &out); err != nil {
			t.Fatalf("%v of %v", err, sent)
		}
		if !reflect.DeepEqual(out.Headers, in.Headers) || out.Key != in.Key || !bytes.Equal(out.CorrelationID, in.CorrelationID) {
			t.Fatalf("%+v became %+v by %v", in, out, sent)
		}
	})
}

// Any body is an event or an error; what it is as an event is what it is again
// when written as one and read back, but for white space around JSON.
func FuzzCloudEvent(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	const head = `{"specversion":"1.0","id":"1","source":"/s","type":"t"`
	for _, s := range []string{
		head + `}`, head + `,"data":{"a":[1,2]}}`, head + `,"data":"text","datacontenttype":"text/plain"}`, head + `,"data":"text"}`, head + `,"data":null}`,
		head + `,"data_base64":"AP8=","datacontenttype":"a/b"}`, head + `,"data_base64":"?"}`, head + `,"data":1,"data_base64":""}`,
		head + `,"ext":true,"n":-2147483648,"big":2147483648,"partitionkey":"k","none":null,"Upper":1,"nest":{}}`,
		head + `,"data":"\ud800","subject":"a\r\nb\u0000"}`, head + `,"subject":"\xff"}`, head + `,"data":"x","datacontenttype":"application/json"}`,
		head + `,"id":""}`, `{"specversion":"0.3","id":"1","source":"/","type":"t"}`, `[]`, `{}`, `{} {}`, head + `,"data_base64":"gGI=","datacontenttype":"text/json"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var e core.Envelope
		if decodeEvent(data, &e) != nil {
			return
		}
		for _, h := range e.Headers {
			if !utf8.ValidString(h.Value) || !isAttribute(strings.TrimPrefix(h.Name, eventPrefix)) {
				t.Fatalf("%q has the header %q: %q", data, h.Name, h.Value)
			}
		}
		text := appendEvent(nil, &core.Delivery{Envelope: &e})
		if !json.Valid(text) || !utf8.Valid(text) {
			t.Fatalf("%q is written as %q", data, text)
		}
		var again core.Envelope
		if err := decodeEvent(text, &again); err != nil {
			t.Fatalf("%q is written as %q, which is none: %v", data, text, err)
		}
		e.Payload, again.Payload = bytes.TrimSpace(e.Payload), bytes.TrimSpace(again.Payload)
		if len(e.Payload) == 0 { // no data is no payload
			e.Payload, again.Payload, again.ContentType = nil, nil, e.ContentType
		}
		if !reflect.DeepEqual(e, again) {
			t.Fatalf("%q is %+v, written as %q %+v", data, e, text, again)
		}
	})
}
