package main

import (
	"bytes"
	"testing"
	"time"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

func TestPrinting(t *testing.T) {
	m := &link.Message{Offset: 7, Attempt: 2}
	m.Topic, m.Payload, m.Key, m.ContentType = "a/b", []byte("hi"), "k", "text/plain"
	m.Headers = []core.Header{{Name: "x", Value: "1"}, {Name: "x", Value: "2"}}
	m.CorrelationID = []byte{0xff}
	m.Time = time.UnixMilli(1500)
	binary := &link.Message{}
	binary.Payload = []byte{0, 0xff}
	structured := &link.Message{}
	structured.Payload, structured.ContentType = []byte(`{"b":1,"a":2}`), "application/json"
	for _, c := range []struct {
		print printing
		m     *link.Message
		want  string
	}{
		{printing{output: "text"}, m, "a/b  hi\n"},
		{printing{output: "ndjson"}, m, `{"t":"a/b","o":7,"ts":1500,"n":2,"key":"k","h":[["x","1"],["x","2"]],"corr64":"/w==","type":"text/plain","d":"hi"}` + "\n"},
		{printing{output: "ndjson"}, binary, `{"b":"AP8="}` + "\n"},
		{printing{output: "ndjson"}, structured, `{"type":"application/json","d":{"b":1,"a":2}}` + "\n"},
		{printing{}, structured, `{"type":"application/json","d":{"b":1,"a":2}}` + "\n"},
		{printing{format: "%t %o %p %k %y [%h] %c %d %a 100%%%n"}, m, "a/b 7 hi k text/plain [x: 1, x: 2] /w== 1970-01-01T00:00:01.5Z 2 100%\n\n"},
	} {
		var out bytes.Buffer
		print, err := c.print.printer(&out)
		if err != nil {
			t.Fatal(err)
		}
		if err := print(c.m); err != nil || out.String() != c.want {
			t.Errorf("%+v: %q, %v, want %q", c.print, out.String(), err, c.want)
		}
	}
	for _, bad := range []printing{{output: "xml"}, {format: "%x"}, {format: "100%"}} {
		if _, err := bad.printer(&bytes.Buffer{}); exitCode(err) != exitUsage {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}
