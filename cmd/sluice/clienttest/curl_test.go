package clienttest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// An answer is what curl printed: -i gives the header, --raw the body as it
// came, so that the two can be read as HTTP has them.
type httpAnswer struct {
	status int
	header http.Header
	body   []byte
}

// curlCommand is curl on a path of the broker. Paths are sent as they are.
func curlCommand(ctx context.Context, t testing.TB, b *broker, path string, args ...string) *exec.Cmd {
	all := append([]string{"-sSiN", "--raw", "--path-as-is"}, args...)
	cmd := exec.CommandContext(ctx, tool(t, "curl", "curl"), append(all, "http://"+b.HTTP+path)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

// curl makes one request and reads the answer. A status of 400 or more is an
// error.
func curl(ctx context.Context, t testing.TB, b *broker, path string, body []byte, args ...string) (httpAnswer, error) {
	cmd := curlCommand(ctx, t, b, path, args...)
	cmd.Stdin = bytes.NewReader(body)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return httpAnswer{}, fmt.Errorf("curl %s: %w: %s", path, err, stderr.String())
	}
	res, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
	if err != nil {
		return httpAnswer{}, fmt.Errorf("curl %s: %w: %.300q", path, err, out)
	}
	defer res.Body.Close()
	a := httpAnswer{status: res.StatusCode, header: res.Header}
	if a.body, err = io.ReadAll(res.Body); err != nil {
		return a, fmt.Errorf("curl %s: %w: %.300q", path, err, out)
	}
	if a.status >= 400 {
		return a, fmt.Errorf("curl %s: %s: %s", path, res.Status, a.body)
	}
	return a, nil
}

// curlPub publishes, one process a message.
func curlPub(t testing.TB, b *broker) (publishFunc, error) {
	return func(to address, m message) error {
		args := []string{"--data-binary", "@-"}
		if m.ContentType == "" {
			args = append(args, "-H", "Content-Type:") // curl would say it is a form
		}
		for _, h := range httpHeaders(m) {
			args = append(args, "-H", h.Name+": "+h.Value)
		}
		a, err := curl(context.Background(), t, b, publishPath(to, m), m.Payload, args...)
		if err == nil && a.status != http.StatusCreated {
			err = fmt.Errorf("status %d: %s", a.status, a.body)
		}
		return err
	}, nil
}

// lines reads the messages of an answer in NDJSON.
func lines(a httpAnswer) ([]message, error) {
	var all []message
	for line := range bytes.Lines(a.body) {
		m, err := jsonMessage(line)
		if err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

// curlRead is one finite read.
func curlRead(t testing.TB, b *broker, a address, from string) ([]message, error) {
	answer, err := curl(context.Background(), t, b, withQuery("/t/"+levelsPath(a.topic), "from", from, "limit", "10000"), nil)
	if err != nil {
		return nil, err
	}
	return lines(answer)
}

// A poller reads by long polls until it is ended.
type poller struct {
	*inbox
	ctx  context.Context
	done sync.WaitGroup
}

func newPoller() *poller {
	ctx, cancel := context.WithCancel(context.Background())
	p := &poller{inbox: newInbox(), ctx: ctx}
	p.end = onceFunc(func() error {
		cancel()
		p.done.Wait()
		return nil
	})
	p.drop = p.end
	return p
}

// loop polls until the poller is ended or a poll fails.
func (p *poller) loop(poll func() error) {
	p.done.Go(func() {
		for {
			err := poll()
			if p.ctx.Err() != nil {
				return
			}
			if err != nil {
				p.fail(err)
				return
			}
		}
	})
}

// curlPoll receives by long polls: of a filter from an offset on, and of a
// queue or group by leases that are accepted one by one.
func curlPoll(t testing.TB, b *broker, s selection) (*inbox, error) {
	p := newPoller()
	for _, a := range s.from {
		switch {
		case s.retained:
			if err := p.last(t, b, a); err != nil {
				return nil, err
			}
		case a.queue != "" || s.group != "":
			take := func(wait time.Duration) error {
				leased, err := p.lease(t, b, a, s.group, wait)
				for _, l := range leased {
					if err := l.accept(); err != nil {
						return err
					}
					p.add(l.message)
				}
				return err
			}
			// The first one makes the group, before anything is published.
			if err := take(0); err != nil {
				return nil, err
			}
			p.loop(func() error { return take(10 * time.Second) })
		default:
			// Without a start, begin where the log ends now.
			start := s.start
			if start == "" {
				start = "latest"
			}
			next, err := p.page(t, b, a, start, 0)
			if err != nil {
				return nil, err
			}
			p.loop(func() (err error) {
				next, err = p.page(t, b, a, next, 10*time.Second)
				return err
			})
		}
	}
	return p.inbox, nil
}

// page reads one page and says where to go on.
func (p *poller) page(t testing.TB, b *broker, a address, from string, wait time.Duration) (next string, err error) {
	path := withQuery("/t/"+levelsPath(a.topic), "from", from)
	if wait > 0 {
		path = withQuery("/t/"+levelsPath(a.topic), "from", from, "wait", ms(wait))
	}
	answer, err := curl(p.ctx, t, b, path, nil)
	if err != nil {
		return "", err
	}
	all, err := lines(answer)
	for _, m := range all {
		p.add(m)
	}
	if next = answer.header.Get("X-Next"); next == "" {
		err = firstOf(err, errors.New("the answer has no X-Next"))
	}
	return next, err
}

// last reads the retained values that a filter matches.
func (p *poller) last(t testing.TB, b *broker, a address) error {
	answer, err := curl(p.ctx, t, b, withQuery("/last/"+levelsPath(a.topic), "format", "ndjson"), nil)
	if err != nil {
		return err
	}
	all, err := lines(answer)
	for _, m := range all {
		p.add(m)
	}
	return err
}

// A leased is a message that a curl holds.
type leased struct {
	message
	accept func() error
}

func (p *poller) lease(t testing.TB, b *broker, a address, group string, wait time.Duration) ([]leased, error) {
	path, args := withQuery("/q/"+queuePath(a.queue)+"/lease", "wait", ms(wait), "max", "100"), []string{"-X", "POST"}
	if group != "" {
		path, args = withQuery("/t/"+levelsPath(a.topic), "group", group, "wait", ms(wait), "limit", "100"), nil
	}
	answer, err := curl(p.ctx, t, b, path, nil, args...)
	if err != nil {
		return nil, err
	}
	var all []leased
	for line := range bytes.Lines(answer.body) {
		m, token, err := jsonLease(line)
		if err != nil {
			return all, err
		}
		all = append(all, leased{m, func() error {
			// Not under the poller's context: what was taken is settled.
			_, err := curl(context.Background(), t, b, "/lease/"+queuePath(token)+"/accept", nil, "-X", "POST")
			return err
		}})
	}
	return all, nil
}

// curlLease leases from a queue and leaves what it got unsettled.
func curlLease(t testing.TB, b *broker, queue address, limit int, wait time.Duration) ([]message, error) {
	path := withQuery("/q/"+queuePath(queue.queue)+"/lease", "wait", ms(wait), "max", strconv.Itoa(limit))
	answer, err := curl(context.Background(), t, b, path, nil, "-X", "POST")
	if err != nil {
		return nil, err
	}
	return lines(answer)
}

// curlOne receives by reads of one message each, raw.
func curlOne(t testing.TB, b *broker, s selection) (*inbox, error) {
	p := newPoller()
	path := "/t/" + levelsPath(s.from[0].topic)
	answer, err := curl(p.ctx, t, b, withQuery(path, "from", "latest"), nil)
	if err != nil {
		return nil, err
	}
	next := answer.header.Get("X-Next")
	p.loop(func() error {
		answer, err := curl(p.ctx, t, b, withQuery(path, "from", next, "wait", "10s", "format", "raw"), nil)
		if err != nil {
			return err
		}
		next = answer.header.Get("X-Next")
		if answer.status == http.StatusNoContent {
			return nil
		}
		m, err := rawMessage(answer.header, answer.body)
		if err == nil {
			p.add(m)
		}
		return err
	})
	return p.inbox, nil
}

// curlSSE receives event streams, one curl for each filter.
func curlSSE(t testing.TB, b *broker, s selection) (*inbox, error) {
	in := newInbox()
	var streams []*inbox
	in.end = onceFunc(func() (err error) {
		for _, one := range streams {
			err = firstOf(err, one.end())
		}
		return err
	})
	in.drop = in.end
	for _, a := range s.from {
		one, err := startCurlSSE(t, b, a, s)
		if err != nil {
			in.end()
			return nil, err
		}
		streams = append(streams, one)
		one.pour(in)
	}
	return in, nil
}

// startCurlSSE starts one stream and waits until it is open.
func startCurlSSE(t testing.TB, b *broker, a address, s selection, args ...string) (*inbox, error) {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := curlCommand(ctx, t, b, ssePath(a, s), args...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	in := newInbox()
	ended := make(chan struct{})
	in.end = onceFunc(func() error {
		cancel()
		<-ended
		return nil
	})
	in.drop = in.end
	opened := make(chan error, 1)
	go func() {
		defer close(ended)
		in.fail(readSSE(stdout, in, opened))
		cmd.Wait()
	}()
	select {
	case err = <-opened:
	case <-time.After(answerWithin):
		err = errors.New("the event stream does not open")
	}
	if err != nil {
		in.end()
		return nil, err
	}
	return in, nil
}

// readSSE reads an answer with an event stream (HTML Living Standard, 9.2.6).
func readSSE(stdout io.Reader, in *inbox, opened chan<- error) error {
	res, err := http.ReadResponse(bufio.NewReaderSize(stdout, 1<<20), nil)
	if err == nil && res.StatusCode != http.StatusOK {
		body, _ := io.ReadAll(res.Body)
		err = fmt.Errorf("%s: %s", res.Status, body)
	}
	opened <- err
	if err != nil {
		return err
	}
	lines := bufio.NewReaderSize(res.Body, 1<<20)
	var data []string
	event, id := "", ""
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the event stream ended: %w", err)
		}
		line = strings.TrimSuffix(line, "\n")
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case line == "":
			if len(data) > 0 && (event == "" || event == "message") {
				m, err := jsonMessage([]byte(strings.Join(data, "\n")))
				if err != nil {
					return err
				}
				// The id says where to go on: behind a retained value that is
				// not behind its own, old offset.
				if m.Offset != id && !m.Retain {
					return fmt.Errorf("the event's id is %q, its offset %q", id, m.Offset)
				}
				in.add(m)
			} else if len(data) > 0 {
				return fmt.Errorf("event %s: %s", event, strings.Join(data, "\n"))
			}
			data, event = nil, ""
		case name == "data":
			data = append(data, value)
		case name == "event":
			event = value
		case name == "id":
			id = value
		}
	}
}
