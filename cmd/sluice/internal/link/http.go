package link

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sluicemq/sluice/core"
)

// httpLink makes requests; it holds no connection of its own.
type httpLink struct {
	client         *http.Client
	base           string
	user, password string
}

func dialHTTP(ctx context.Context, o Options) (Link, error) {
	l := NewHTTP(o)
	res, err := l.do(ctx, "GET", "/healthz", nil, nil)
	if err != nil {
		return nil, err
	}
	res.Body.Close()
	return (*httpLink)(l), nil
}

// An HTTP is a broker's HTTP door.
type HTTP httpLink

// NewHTTP makes one. It does not connect.
func NewHTTP(o Options) *HTTP {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.Proxy = o.TLS, nil
	scheme := map[bool]string{false: "http", true: "https"}[o.TLS != nil]
	return &HTTP{client: &http.Client{Transport: transport}, base: scheme + "://" + o.Address, user: o.User, password: o.Password}
}

// Do makes a request with a JSON body, where there is one, and decodes the
// answer's, where into is not nil. An answer of 400 and more is an error.
func (l *HTTP) Do(ctx context.Context, method, path string, body, into any) error {
	var text []byte
	header := http.Header{}
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
		header.Set("Content-Type", "application/json")
	}
	res, err := l.do(ctx, method, path, header, text)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if into == nil || res.StatusCode == http.StatusNoContent {
		return nil
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// Stream makes a request with a JSON body and returns the answer's, which the
// caller closes.
func (l *HTTP) Stream(ctx context.Context, method, path string, body any) (io.ReadCloser, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	res, err := l.do(ctx, method, path, http.Header{"Content-Type": {"application/json"}}, text)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

func (l *HTTP) do(ctx context.Context, method, path string, header http.Header, body []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, l.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if header != nil {
		req.Header = header
	}
	if l.user != "" {
		req.SetBasicAuth(l.user, l.password)
	}
	res, err := l.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, unreached(err, "http", req.URL.Host)
	}
	if res.StatusCode >= 400 {
		defer res.Body.Close()
		return nil, httpFailure(res)
	}
	return res, nil
}

// Messages gets lines of messages and hands each over.
func (l *HTTP) Messages(ctx context.Context, path string, handle func(*Message) error) error {
	res, err := l.do(ctx, "GET", path, http.Header{"Accept": {linesType}}, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for {
		line, err := lines.ReadBytes('\n')
		if len(bytes.TrimSpace(line)) > 0 {
			if err := handleObject(line, handle); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// A LinesPage is one page of what a topic's log holds, as the broker wrote it.
type LinesPage struct {
	Lines []byte      // a message as JSON each
	Next  core.Offset // where to go on
	More  bool        // whether there is more now
	Gaps  []string    // what is not there any more, as "from-to", inclusive
}

// Lines reads one page.
func (l *HTTP) Lines(ctx context.Context, path string) (p LinesPage, err error) {
	res, err := l.do(ctx, "GET", path, http.Header{"Accept": {linesType}}, nil)
	if err != nil {
		return p, err
	}
	defer res.Body.Close()
	next, err := strconv.ParseUint(res.Header.Get("X-Next"), 10, 63)
	if err != nil {
		return p, fmt.Errorf("the broker does not say where to go on: %w", err)
	}
	p.Next, p.More, p.Gaps = core.Offset(next), res.Header.Get("X-More") == "true", res.Header.Values("X-Gap")
	p.Lines, err = io.ReadAll(res.Body)
	return p, err
}

// A LineAnswer says what became of a line that was published.
type LineAnswer struct {
	Offset    core.Offset `json:"o"`
	Duplicate bool        `json:"dup"`
	Err       *struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	} `json:"err"`
}

const linesType = "application/x-ndjson"

// PublishLines publishes messages, one as JSON a line, and returns an answer for
// each once they are durable.
func (l *HTTP) PublishLines(ctx context.Context, lines []byte) ([]LineAnswer, error) {
	res, err := l.do(ctx, "POST", "/t", http.Header{"Content-Type": {linesType}}, lines)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var all []LineAnswer
	for d := json.NewDecoder(res.Body); ; {
		var a LineAnswer
		if err := d.Decode(&a); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, a)
	}
}

// EscapeTopic is a topic or filter as it stands in a path.
func EscapeTopic(topic string) string { return levels(topic, url.PathEscape) }

// httpFailure makes a problem (RFC 9457) an error.
func httpFailure(res *http.Response) error {
	var problem struct{ Title, Detail, Hint string }
	text, _ := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if json.Unmarshal(text, &problem) != nil || problem.Title == "" {
		problem.Title = res.Status
		problem.Detail = strings.TrimSpace(string(text))
	}
	said := problem.Title
	if problem.Detail != "" {
		said += ": " + problem.Detail
	}
	// What it hints at where a request is wrong is for who writes requests.
	if problem.Hint != "" && !slices.Contains([]int{http.StatusBadRequest, http.StatusNotFound, http.StatusGone, http.StatusRequestedRangeNotSatisfiable}, res.StatusCode) {
		said += "\n" + problem.Hint
	}
	kinds := map[int]error{
		http.StatusUnauthorized: core.ErrUnauthenticated, http.StatusForbidden: core.ErrNotAuthorized, http.StatusNotFound: core.ErrNotFound,
		http.StatusConflict: core.ErrConflict, http.StatusGatewayTimeout: context.DeadlineExceeded, http.StatusRequestEntityTooLarge: core.ErrTooLarge,
		http.StatusInsufficientStorage: core.ErrStorageFull,
	}
	return failure(kinds[res.StatusCode], said)
}

// publishPath is where a message is posted.
func publishPath(topic string) string {
	switch kind, name, key := topicOf(topic); kind {
	case "queue":
		return "/q/" + url.PathEscape(name)
	case "exchange":
		return "/x/" + url.PathEscape(name) + "/" + levels(key, url.PathEscape)
	}
	return "/t/" + EscapeTopic(topic)
}

// publishHeader is what of a message stands in a request's header.
func publishHeader(m *Message) (http.Header, error) {
	h := http.Header{}
	text := func(name, value string) {
		switch {
		case value == "":
		case plain(value):
			h.Set(name, value)
		default: // RFC 8187
			h[name+"*"] = []string{"UTF-8''" + strings.ReplaceAll(url.QueryEscape(value), "+", "%20")}
		}
	}
	contentType := m.ContentType
	if contentType != "" {
		h.Set("Content-Type", contentType)
	}
	text("X-Key", m.Key)
	text("X-Reply-To", m.ReplyTo)
	text("Idempotency-Key", m.ID)
	if m.CorrelationID != nil {
		if s := string(m.CorrelationID); s != "" && plain(s) {
			h.Set("X-Correlation-Id", s)
		} else if utf8.Valid(m.CorrelationID) {
			text("X-Correlation-Id", s)
		} else {
			return nil, fmt.Errorf("%w: over http a correlation id is UTF-8", core.ErrInvalid)
		}
	}
	if m.TTL > 0 {
		h.Set("X-TTL", m.TTL.String())
	}
	if m.Delay > 0 {
		h.Set("X-Delay", m.Delay.String())
	}
	if level, ok := m.Priority.Level(); ok {
		h.Set("X-Priority", strconv.Itoa(level))
	}
	if len(m.Headers) > 0 {
		all, err := json.Marshal(pairs(m.Headers))
		if err != nil {
			return nil, err
		}
		h.Set("X-Headers", asciiJSON(all))
	}
	return h, nil
}

// asciiJSON escapes in JSON what a header line cannot hold.
func asciiJSON(text []byte) string {
	var b strings.Builder
	for _, r := range string(text) {
		if r < 0x7f {
			b.WriteRune(r)
			continue
		}
		for _, unit := range utf16.Encode([]rune{r}) {
			fmt.Fprintf(&b, `\u%04x`, unit)
		}
	}
	return b.String()
}

// plain reports whether a value can stand in a header line as it is.
func plain(s string) bool {
	return strings.TrimSpace(s) == s && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r >= 0x7f })
}

func (l *httpLink) publish(ctx context.Context, m *Message, query url.Values) (*http.Response, error) {
	h, err := publishHeader(m)
	if err != nil {
		return nil, err
	}
	if m.Retain {
		query.Set("retain", "true")
	}
	if m.Guarantee == core.AtMostOnce {
		query.Set("durable", "false")
	}
	path := publishPath(m.Topic)
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return (*HTTP)(l).do(ctx, "POST", path, h, m.Payload)
}

func (l *httpLink) Publish(ctx context.Context, m *Message) (core.Offset, error) {
	res, err := l.publish(ctx, m, url.Values{})
	if err != nil {
		return 0, err
	}
	defer res.Body.Close()
	offset, _ := strconv.ParseUint(res.Header.Get("X-Offset"), 10, 63)
	return core.Offset(offset), nil
}

func (l *httpLink) Request(ctx context.Context, m *Message) (*Message, error) {
	query := url.Values{}
	patience := 5 * time.Second
	if deadline, ok := ctx.Deadline(); ok {
		patience = time.Until(deadline)
	}
	query.Set("reply", max(patience.Truncate(time.Millisecond), time.Millisecond).String())
	query.Set("mandatory", "false") // who answers may look at the topic later
	// The broker answers that nobody replied; a little later so do we.
	waiting, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience+2*time.Second)
	defer cancel()
	res, err := l.publish(waiting, m, query)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return rawMessage(res)
}

// rawMessage reads a message that stands in an answer as it is.
func rawMessage(res *http.Response) (*Message, error) {
	m := &Message{Attempt: 1}
	h := res.Header
	text := func(name string) string {
		if v := h.Get(name); v != "" {
			return v
		}
		if v, ok := strings.CutPrefix(h.Get(name+"*"), "UTF-8''"); ok {
			if s, err := url.PathUnescape(v); err == nil {
				return s
			}
		}
		return ""
	}
	m.Topic, m.Key, m.ReplyTo, m.ContentType = text("X-Topic"), text("X-Key"), text("X-Reply-To"), h.Get("Content-Type")
	if c := text("X-Correlation-Id"); c != "" {
		m.CorrelationID = []byte(c)
	}
	if n, err := strconv.ParseUint(h.Get("X-Offset"), 10, 63); err == nil {
		m.Offset = core.Offset(n)
	}
	if n, err := strconv.ParseInt(h.Get("X-Time"), 10, 64); err == nil {
		m.Time = time.UnixMilli(n)
	}
	if all := h.Get("X-Headers"); all != "" {
		var err error
		if m.Headers, err = ParseHeaders(json.RawMessage(all)); err != nil {
			return nil, err
		}
	} else {
		for name, values := range h {
			if name, ok := strings.CutPrefix(name, "X-H-"); ok {
				for _, v := range values {
					m.Headers = append(m.Headers, core.Header{Name: strings.ToLower(name), Value: v})
				}
			}
		}
	}
	var err error
	m.Payload, err = io.ReadAll(res.Body)
	return m, err
}

func (l *httpLink) Subscribe(ctx context.Context, s Subscription, handle func(*Message) error) error {
	if s.Queue != "" {
		return l.lease(ctx, "POST", "/q/"+url.PathEscape(s.Queue)+"/lease", url.Values{}, s, handle)
	}
	if s.Group != "" {
		q := url.Values{"group": {s.Group}}
		if s.Ordered {
			q.Set("ordered", "true")
		}
		return l.lease(ctx, "GET", "/t/"+EscapeTopic(s.Filters[0]), q, s, handle)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var one sync.Mutex // so that handle runs once at a time
	ended := make(chan error, len(s.Filters))
	var open sync.WaitGroup
	open.Add(len(s.Filters))
	for _, filter := range s.Filters {
		go func() {
			ended <- l.stream(ctx, filter, s, open.Done, func(m *Message) error {
				one.Lock()
				defer one.Unlock()
				if ctx.Err() != nil {
					return ctx.Err()
				}
				err := handle(m)
				if err != nil {
					cancel()
				}
				return err
			})
		}()
	}
	if s.Ready != nil {
		ready := make(chan struct{})
		go func() { open.Wait(); close(ready) }()
		select {
		case <-ready:
			s.Ready()
		case err := <-ended:
			return err
		}
	}
	first := <-ended
	cancel()
	for range len(s.Filters) - 1 {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			first = err
		}
	}
	return first
}

// stream reads server-sent events with a message as JSON each.
func (l *httpLink) stream(ctx context.Context, filter string, s Subscription, ready func(), handle func(*Message) error) error {
	query := url.Values{"format": {"json"}}
	if s.From != "" {
		query.Set("from", s.From)
	} else if !s.SkipRetained {
		query.Set("retained", "true")
	}
	res, err := (*HTTP)(l).do(ctx, "GET", "/sse/"+EscapeTopic(filter)+"?"+query.Encode(), nil, nil)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	ready()
	lines := bufio.NewReaderSize(res.Body, 64<<10)
	event := ""
	var data []byte
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return errLost
		}
		name, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			event = value
		case "data":
			if data != nil {
				data = append(data, '\n')
			}
			data = append(data, value...)
		case "":
			if line = strings.TrimRight(line, "\r\n"); line != "" {
				continue // a comment
			}
			if data != nil && (event == "" || event == "message") {
				if err := handleObject(data, handle); err != nil {
					return err
				}
			} else if event == "error" {
				return failure(nil, string(data))
			}
			event, data = "", nil
		}
	}
}

func handleObject(text []byte, handle func(*Message) error) error {
	var o object
	if err := json.Unmarshal(text, &o); err != nil {
		return err
	}
	m, err := o.message()
	if err != nil {
		return err
	}
	return handle(m)
}

// lease takes messages of a queue or group and settles each.
func (l *httpLink) lease(ctx context.Context, method, path string, query url.Values, s Subscription, handle func(*Message) error) error {
	query.Set("wait", "20s")
	if s.Queue != "" {
		query.Set("max", strconv.Itoa(s.Credit))
	} else {
		query.Set("limit", strconv.Itoa(s.Credit))
	}
	if s.From != "" {
		query.Set("from", s.From)
	}
	if s.Ready != nil {
		s.Ready()
	}
	for {
		res, err := (*HTTP)(l).do(ctx, method, path+"?"+query.Encode(), http.Header{"Accept": {"application/x-ndjson"}}, nil)
		if err != nil {
			return err
		}
		leased, err := objectsOf(res.Body)
		res.Body.Close()
		if err != nil {
			return err
		}
		for i := range leased {
			m, err := leased[i].message()
			if err == nil {
				err = handle(m)
			}
			if err == nil || errors.Is(err, ErrStop) {
				if failed := l.settle(ctx, leased[i].Lease, "accept"); failed != nil {
					return failed
				}
			}
			if err != nil {
				for _, rest := range leased[i+1:] {
					l.settle(context.WithoutCancel(ctx), rest.Lease, "release")
				}
				return err
			}
		}
	}
}

// objectsOf reads lines of JSON.
func objectsOf(r io.Reader) ([]object, error) {
	var list []object
	for d := json.NewDecoder(r); ; {
		var o object
		if err := d.Decode(&o); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
}

func (l *httpLink) settle(ctx context.Context, lease, verb string) error {
	if lease == "" {
		return nil
	}
	res, err := (*HTTP)(l).do(ctx, "POST", "/lease/"+url.PathEscape(lease)+"/"+verb, nil, nil)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (l *httpLink) Close() error {
	l.client.CloseIdleConnections()
	return nil
}
