package http

import (
	"encoding/base64"
	nethttp "net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// formType is what curl -d and HTML forms send where nobody chose a type. As
// hardly anybody means it, exactly this value stands for an unset type; with a
// parameter (such as charset) it is kept.
const formType = "application/x-www-form-urlencoded"

// readFields reads a request's header into an envelope: what the table of
// the package's comment names, and the envelope's own headers, sorted by name.
func readFields(r *nethttp.Request, e *core.Envelope) error {
	var all []string // X-Headers
	for name, values := range r.Header {
		if name[0] != 'X' && name[0] != 'I' && name[0] != 'T' && name[0] != 'C' {
			continue
		}
		var err error
		switch name {
		case "Content-Type":
			err = readText(&e.ContentType, r, name, values)
			if e.ContentType == formType {
				e.ContentType = ""
			}
		case "Content-Encoding":
			if v, _ := one(name, values); !strings.EqualFold(v, "identity") {
				err = wrongType.with("a body with Content-Encoding " + quote(v) + " is not taken: send the message itself, or leave the header out and say so in Content-Type")
			}
		case "X-Key":
			err = readText(&e.Key, r, name, values)
		case "X-Reply-To":
			err = readText(&e.ReplyTo, r, name, values)
		case "Idempotency-Key":
			err = readText(&e.ID, r, name, values)
		case "X-Key*":
			err = readExtended(&e.Key, name, values)
		case "X-Reply-To*":
			err = readExtended(&e.ReplyTo, name, values)
		case "Idempotency-Key*":
			err = readExtended(&e.ID, name, values)
		case "X-Correlation-Id":
			if r.Header["X-Correlation-Id-Base64"] == nil {
				var v string
				v, err = one(name, values)
				e.CorrelationID = []byte(v)
			}
		case "X-Correlation-Id-Base64":
			var v string
			if v, err = one(name, values); err == nil {
				if e.CorrelationID, err = base64.StdEncoding.DecodeString(v); err != nil {
					err = badRequest.with("X-Correlation-Id-Base64 is not base64")
				}
			}
		case "X-Ttl":
			var d time.Duration
			if d, err = readSpan("X-TTL", values, 1); err == nil {
				e.Expires = time.Now().Add(d)
			}
		case "X-Delay":
			var d time.Duration
			if d, err = readSpan(name, values, 0); err == nil && d > 0 {
				e.DeliverAt = time.Now().Add(d)
			}
		case "X-Priority":
			var v string
			if v, err = one(name, values); err != nil {
				break
			}
			n, notNumber := strconv.Atoi(v)
			if notNumber != nil || n < 0 || n > 9 {
				err = badRequest.with("X-Priority: " + quote(v) + ": want a number from 0 to 9")
			} else {
				e.Priority = core.PriorityOf(n)
			}
		case "X-Headers":
			all = values
		case "Traceparent", "Tracestate":
			err = readHeaders(e, strings.ToLower(name), values)
		default:
			if h, ok := strings.CutPrefix(name, "X-H-"); ok {
				err = readHeaders(e, strings.ToLower(h), values)
			} else if strings.HasPrefix(name, "Ce-") {
				err = readHeaders(e, strings.ToLower(name), values)
				for i := len(e.Headers) - len(values); err == nil && isEncoded(strings.ToLower(name)) && i < len(e.Headers); i++ {
					e.Headers[i].Value = decodeAttribute(e.Headers[i].Value)
				}
			}
		}
		if err != nil {
			return err
		}
	}
	if all != nil {
		v, err := one("X-Headers", all)
		if err != nil {
			return err
		}
		e.Headers, err = parseHeaders(e.Headers[:0], []byte(v))
		if err != nil {
			return badRequest.with("X-Headers: " + err.Error())
		}
		return nil
	}
	if len(e.Headers) > 1 {
		// The order of a map is nobody's: that of the names is at least the
		// same each time. Repeats keep theirs.
		slices.SortStableFunc(e.Headers, func(a, b core.Header) int { return strings.Compare(a.Name, b.Name) })
	}
	return nil
}

// one is the value of a header that must not stand twice.
func one(name string, values []string) (string, error) {
	if len(values) > 1 {
		return "", badRequest.with("the header " + name + " stands more than once")
	}
	return values[0], nil
}

// readSpan reads a time of at least so long.
func readSpan(name string, values []string, least time.Duration) (time.Duration, error) {
	v, err := one(name, values)
	if err != nil {
		return 0, err
	}
	d, ok := parseDuration(v)
	if !ok || d < least || d > longestDelay {
		return 0, badRequest.with(name + ": " + quote(v) + ": want a time such as 90s or 1h30m, at most 10 years")
	}
	return d, nil
}

// readText reads a field of UTF-8 text, unless its extended form is there.
func readText(into *string, r *nethttp.Request, name string, values []string) error {
	if r.Header[name+"*"] != nil {
		return nil
	}
	v, err := one(name, values)
	if err == nil && !utf8.ValidString(v) {
		err = badRequest.with("the header " + name + " is not UTF-8")
	}
	*into = v
	return err
}

// readExtended reads a field in the form of RFC 8187: UTF-8”percent-encoded.
func readExtended(into *string, name string, values []string) error {
	v, err := one(name, values)
	if err != nil {
		return err
	}
	charset, v, ok := strings.Cut(v, "'")
	_, v, ok2 := strings.Cut(v, "'")
	text, notEscaped := url.PathUnescape(v)
	if !ok || !ok2 || !strings.EqualFold(charset, "utf-8") || notEscaped != nil || !utf8.ValidString(text) {
		return badRequest.with("the header " + name + " is not UTF-8''… as RFC 8187 has it")
	}
	*into = text
	return nil
}

// readHeaders adds an envelope's header, with its repeats.
func readHeaders(e *core.Envelope, name string, values []string) error {
	for _, v := range values {
		if !utf8.ValidString(v) {
			return badRequest.with("the header " + quote(name) + " is not UTF-8")
		}
		e.Headers = append(e.Headers, core.Header{Name: name, Value: v})
	}
	return nil
}

// writeFields writes what a delivery carries beside its payload into an
// answer's header.
func (s *Server) writeFields(h nethttp.Header, d *core.Delivery, now time.Time) {
	h["X-Offset"] = []string{strconv.FormatUint(uint64(d.Offset), 10)}
	h["X-Time"] = []string{d.Time.UTC().Format(timeLayout)}
	h["X-Attempt"] = []string{strconv.Itoa(int(max(d.Attempt, 1)))}
	writeText(h, "X-Topic", d.Topic)
	h["Content-Type"] = nil // unset stays unset: net/http must not guess
	if d.ContentType != "" {
		if ascii, plain := inspect(d.ContentType); ascii && plain {
			h["Content-Type"] = []string{d.ContentType}
		} else {
			s.metrics.Fallback("content_type")
		}
	}
	writeText(h, "X-Key", d.Key)
	writeText(h, "X-Reply-To", d.ReplyTo)
	writeText(h, "Idempotency-Key", d.ID)
	writeText(h, "X-Publisher", d.Publisher.Principal)
	if d.CorrelationID != nil {
		if ascii, plain := inspect(string(d.CorrelationID)); ascii && plain {
			h["X-Correlation-Id"] = []string{string(d.CorrelationID)}
		} else {
			h["X-Correlation-Id-Base64"] = []string{base64.StdEncoding.EncodeToString(d.CorrelationID)}
		}
	}
	if !d.Expires.IsZero() {
		left := remaining(d.Expires, now)
		h["X-TTL"] = []string{strconv.FormatFloat(float64(left)/1000, 'f', -1, 64) + "s"}
	}
	if level, ok := d.Priority.Level(); ok {
		h["X-Priority"] = []string{strconv.Itoa(level)}
	}
	if d.Retain {
		h["X-Retain"] = []string{"true"}
	}
	if d.Retained {
		h["X-Retained"] = []string{"true"}
	}
	s.writeHeaders(h, d.Headers)
}

// timeLayout is RFC 3339 in milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// remaining is how many milliseconds are left, rounded up, at least one.
func remaining(expires, now time.Time) int64 {
	return max(1, int64((expires.Sub(now)+time.Millisecond-1)/time.Millisecond))
}

// writeHeaders writes an envelope's headers, and all of them in X-Headers
// where reading them back would not give the same.
func (s *Server) writeHeaders(h nethttp.Header, headers []core.Header) {
	faithful := true
	for i, header := range headers {
		value := header.Value
		if isEncoded(header.Name) && utf8.ValidString(value) {
			value = encodeAttribute(value)
		}
		ascii, plain := inspect(value)
		token := lowerToken(header.Name)
		if token && plain {
			name := "X-H-" + header.Name
			if header.Name == "traceparent" || header.Name == "tracestate" || strings.HasPrefix(header.Name, eventPrefix) {
				name = header.Name
			}
			h[name] = append(h[name], value)
		}
		faithful = faithful && token && plain && ascii && (i == 0 || headers[i-1].Name <= header.Name)
	}
	if !faithful {
		s.metrics.Fallback("headers")
		h["X-Headers"] = []string{string(appendPairs(nil, headers, true))}
	}
}

// writeText writes a field of text where it is set: as it is where a header
// line can hold it, and in the form of RFC 8187 where a client might not read
// it that way.
func writeText(h nethttp.Header, name, v string) {
	if v == "" {
		return
	}
	ascii, plain := inspect(v)
	if plain {
		h[name] = []string{v}
	}
	if !plain || !ascii {
		h[name+"*"] = []string{"UTF-8''" + extended(v)}
	}
}

// inspect reports whether a value is ASCII, and whether a header line can hold
// it unchanged: no control characters, no white space at its ends.
func inspect(v string) (ascii, plain bool) {
	ascii = true
	for i := 0; i < len(v); i++ {
		switch c := v[i]; {
		case c < ' ' || c == 0x7f:
			return false, false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	plain = v == "" || v[0] != ' ' && v[len(v)-1] != ' '
	return ascii, plain && (ascii || utf8.ValidString(v))
}

// lowerToken reports whether a name is one that a header line gives back as it
// was: a token (RFC 9110, 5.6.2) without upper case.
func lowerToken(name string) bool {
	for i := 0; i < len(name); i++ {
		c := name[i]
		if !('a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return name != ""
}

// extended percent-encodes all but RFC 8187's attr-char.
func extended(v string) string { return percentEncoded(v, "!#$&+-.^_`|~") }
