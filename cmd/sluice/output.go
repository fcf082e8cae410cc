package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
)

// A printing holds the flags that say how messages are printed.
type printing struct{ output, format string }

func (o *printing) flags(f *pflag.FlagSet) {
	f.StringVarP(&o.output, "output", "o", "", "`form`: text, json or ndjson (default: text on a terminal, else ndjson)")
	f.StringVarP(&o.format, "format", "f", "", `text with %t topic, %o offset, %p payload, %k key, %i message id,
%y content type, %h headers, %r reply-to, %c correlation id, %d time,
%a attempt, %j all of it as JSON, %n new line, %% percent sign`)
}

// printer returns what prints a message to w.
func (o *printing) printer(w io.Writer) (func(*link.Message) error, error) {
	form := o.output
	if form == "" {
		form = "ndjson"
		if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			form = "text"
		}
	}
	if o.format != "" {
		if err := checkFormat(o.format); err != nil {
			return nil, err
		}
		return func(m *link.Message) error {
			_, err := io.WriteString(w, formatMessage(o.format, m)+"\n")
			return err
		}, nil
	}
	switch form {
	case "text":
		return func(m *link.Message) error {
			_, err := io.WriteString(w, formatMessage("%t  %p", m)+"\n")
			return err
		}, nil
	case "json":
		return func(m *link.Message) error {
			text, err := json.MarshalIndent(printedOf(m), "", "  ")
			if err == nil {
				_, err = w.Write(append(text, '\n'))
			}
			return err
		}, nil
	case "ndjson":
		return func(m *link.Message) error { return json.NewEncoder(w).Encode(printedOf(m)) }, nil
	}
	return nil, usageError{fmt.Errorf("-o %s: want text, json or ndjson", form)}
}

// A printed message is one in JSON, by the names of HTTP and WebSocket.
type printed struct {
	Topic    string      `json:"t,omitempty"`
	Offset   uint64      `json:"o,omitempty"`
	Time     int64       `json:"ts,omitempty"`
	Attempt  int         `json:"n,omitempty"`
	Retained bool        `json:"retained,omitempty"`
	Key      string      `json:"key,omitempty"`
	ID       string      `json:"id,omitempty"`
	Headers  [][2]string `json:"h,omitempty"`
	Reply    string      `json:"reply,omitempty"`
	Corr     *string     `json:"corr,omitempty"`
	Corr64   []byte      `json:"corr64,omitempty"`
	TTL      int64       `json:"ttl,omitempty"`
	Priority *int        `json:"prio,omitempty"`
	Type     string      `json:"type,omitempty"`
	Data     any         `json:"d,omitempty"`
	Binary   []byte      `json:"b,omitempty"`
}

func printedOf(m *link.Message) printed {
	p := printed{
		Topic: m.Topic, Offset: uint64(m.Offset), Retained: m.Retained, Key: m.Key, ID: m.ID, Reply: m.ReplyTo,
		TTL: m.TTL.Milliseconds(), Type: m.ContentType,
	}
	if !m.Time.IsZero() {
		p.Time = m.Time.UnixMilli()
	}
	if m.Attempt > 1 {
		p.Attempt = m.Attempt
	}
	for _, h := range m.Headers {
		p.Headers = append(p.Headers, [2]string{h.Name, h.Value})
	}
	switch {
	case m.CorrelationID == nil:
	case utf8.Valid(m.CorrelationID):
		s := string(m.CorrelationID)
		p.Corr = &s
	default:
		p.Corr64 = m.CorrelationID
	}
	if level, ok := m.Priority.Level(); ok {
		p.Priority = &level
	}
	switch {
	case !utf8.Valid(m.Payload):
		p.Binary = m.Payload
	case strings.HasPrefix(m.ContentType, "application/json") && json.Valid(m.Payload):
		p.Data = json.RawMessage(m.Payload)
	default:
		p.Data = string(m.Payload)
	}
	return p
}

const formatVerbs = "topkiyhrcdajn%"

func checkFormat(format string) error {
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			continue
		}
		if i++; i == len(format) || !strings.Contains(formatVerbs, format[i:i+1]) {
			return usageError{fmt.Errorf("-f %q: behind the %% at %d want one of %s", format, i, strings.Join(strings.Split(formatVerbs, ""), " "))}
		}
	}
	return nil
}

// formatMessage fills in a format, which has been checked.
func formatMessage(format string, m *link.Message) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		i++
		switch format[i] {
		case 't':
			b.WriteString(m.Topic)
		case 'o':
			b.WriteString(strconv.FormatUint(uint64(m.Offset), 10))
		case 'p':
			b.Write(m.Payload)
		case 'k':
			b.WriteString(m.Key)
		case 'i':
			b.WriteString(m.ID)
		case 'y':
			b.WriteString(m.ContentType)
		case 'h':
			for n, h := range m.Headers {
				if n > 0 {
					b.WriteString(", ")
				}
				b.WriteString(h.Name + ": " + h.Value)
			}
		case 'r':
			b.WriteString(m.ReplyTo)
		case 'c':
			if utf8.Valid(m.CorrelationID) {
				b.Write(m.CorrelationID)
			} else {
				b.WriteString(base64.StdEncoding.EncodeToString(m.CorrelationID))
			}
		case 'd':
			if !m.Time.IsZero() {
				b.WriteString(m.Time.UTC().Format(time.RFC3339Nano))
			}
		case 'a':
			b.WriteString(strconv.Itoa(m.Attempt))
		case 'j':
			text, _ := json.Marshal(printedOf(m))
			b.Write(text)
		case 'n':
			b.WriteByte('\n')
		case '%':
			b.WriteByte('%')
		}
	}
	return b.String()
}
