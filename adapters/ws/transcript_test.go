package ws

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core"
)

var update = flag.Bool("update", false, "write what the transcripts' servers say into them")

// TestTranscripts plays the conversations in testdata. A line is
//
//	# a comment, or nothing
//	a! /ws?query [subprotocol]     a connects
//	a> {...}                       a sends a message
//	a< {...}                       a receives it; times and secrets are made alike,
//	                               and lines that follow each other may come in any order
//	a< close 1000 bye              or a close frame
//	a< 401 Unauthorized            or the handshake's refusal
//	a$                             nothing comes to a but the answer to a ping
//
// Everything is held against the schema in docs/, and a command that the broker
// finds malformed must be refused by the schema too. Each transcript is played
// once more in CBOR, where all but what is malformed must be the same.
//
// $REPLY in what is sent is the last reply-to that any client received, $RESUME-a
// the resume of the last welcome to a. A file
// whose name begins with auth has the authorizer below.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txt")
		t.Run(name, func(t *testing.T) { playFile(t, file, codingJSON) })
		if !*update {
			t.Run(name+" in CBOR", func(t *testing.T) { playFile(t, file, codingCBOR) })
		}
	}
}

var alike = []struct {
	re *regexp.Regexp
	by string
}{
	{regexp.MustCompile(`"ts":\d{13}`), `"ts":0`},
	{regexp.MustCompile(`"resume":"[A-Z2-7]{26}"`), `"resume":"x"`},
	{regexp.MustCompile(`"ttl":\d+`), `"ttl":0`},
	{regexp.MustCompile(`"client":"ws-[0-9a-f]{12}"`), `"client":"ws-x"`},
	{regexp.MustCompile(`\$inbox/[0-9A-Z]{26}`), `$$inbox/x`},
	{regexp.MustCompile(`"dead-letter-time":"[^"]+"`), `"dead-letter-time":"0"`},
}

var resume = regexp.MustCompile(`"resume":"([^"]+)"`)

var replyTo = regexp.MustCompile(`"reply":"([^"]+)"`)

func playFile(t *testing.T, file string, in coding) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(o *rigOptions) {
		if strings.HasPrefix(filepath.Base(file), "auth") {
			o.authorizer = guard{}
		}
	})
	rules := loadSchema(t)
	sent := make(map[string]string) // the last command of each client
	clients := make(map[string]*client)
	refusals := make(map[string]string)
	reply := ""
	resumes := make(map[string]string)
	var out []string
	if *update {
		defer func() { os.WriteFile(file, []byte(strings.Join(out, "\n")+"\n"), 0o644) }()
	}
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for n := 0; n < len(lines); n++ {
		line := lines[n]
		name, rest, _ := strings.Cut(line, " ")
		if line == "" || line[0] == '#' {
			out = append(out, line)
			continue
		}
		kind := name[len(name)-1]
		name = name[:len(name)-1]
		switch kind {
		case '!':
			f := strings.Fields(rest)
			if in == codingCBOR && (len(f) == 1 || f[1] == codingJSON.protocol()) {
				f = []string{f[0], codingCBOR.protocol()}
			}
			c, answer := r.dial(f[0], nil, f[1:]...)
			clients[name] = c
			if c == nil {
				refusals[name] = answer.Status
				break
			}
			c.coding = in
			if got := answer.Header.Get("Sec-WebSocket-Protocol"); got != strings.Join(f[1:], "") {
				t.Fatalf("%s:%d: subprotocol %q", file, n+1, got)
			}
		case '>':
			sent[name] = strings.ReplaceAll(rest, "$REPLY", reply)
			if _, whose, found := strings.Cut(rest, "$RESUME-"); found {
				sent[name] = strings.ReplaceAll(sent[name], "$RESUME-"+whose[:1], resumes[whose[:1]])
			}
			if in == codingCBOR && n+1 < len(lines) && strings.Contains(lines[n+1], `"code":"malformed"`) {
				if n++; strings.HasPrefix(lines[n+1], name+"< close") { // it cannot go on without
					return
				}
				continue
			}
			clients[name].send(sent[name])
			if n+1 == len(lines) || !strings.Contains(lines[n+1], `"code":"malformed"`) && !strings.Contains(lines[n+1], `"code":"invalid`) && !strings.Contains(lines[n+1], `"code":"no_credit"`) {
				if err := rules.check("command", sent[name]); err != nil {
					t.Errorf("%s:%d: the schema refuses a good command: %v", file, n+1, err)
				}
			}
		case '<':
			first := n
			var want, got []string
			for ; n < len(lines) && strings.HasPrefix(lines[n], name+"<"); n++ {
				want = append(want, strings.TrimPrefix(lines[n], name+"< "))
				g := refusals[name]
				if g == "" {
					g = clients[name].next()
				}
				if strings.HasPrefix(g, "{") {
					if err := rules.check("answer", g); err != nil {
						t.Errorf("%s:%d: %s breaks the schema: %v", file, n+1, g, err)
					}
				}
				if strings.Contains(g, `"code":"malformed"`) && rules.check("command", sent[name]) == nil && !strings.Contains(g, " comes twice") {
					t.Errorf("%s:%d: malformed, but the schema accepts it", file, n+1)
				}
				if m := replyTo.FindStringSubmatch(g); m != nil {
					reply = m[1]
				}
				if m := resume.FindStringSubmatch(g); m != nil {
					resumes[name] = m[1]
				}
				for _, a := range alike {
					g = a.re.ReplaceAllString(g, a.by)
				}
				got = append(got, g)
				out = append(out, name+"< "+g)
			}
			if in == codingCBOR {
				canonical(want)
				canonical(got)
			}
			n--
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) && !*update {
				t.Fatalf("%s:%d:\ngot  %s\nwant %s", file, first+1, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
			}
			continue
		case '$':
			clients[name].quiet()
		default:
			t.Fatalf("%s:%d: what is %q", file, n+1, line)
		}
		out = append(out, line)
	}
}

// A guard lets in who knows the token "secret", as ann, or ann with the
// password "pass"; with the token "long" until 2100, with "brief" for a moment;
// and bob with "other". Nobody may touch topics below private/.
type guard struct{ core.AllowAll }

func (guard) Authenticate(_ context.Context, c core.Credentials) (*core.Principal, error) {
	switch c.Token {
	case "long":
		return &core.Principal{Name: "ann", Until: time.UnixMilli(4102444800000)}, nil
	case "brief":
		return &core.Principal{Name: "ann", Until: time.Now().Add(10 * time.Millisecond)}, nil
	case "other":
		return &core.Principal{Name: "bob"}, nil
	}
	if c.Token == "secret" || c.User == "ann" && string(c.Password) == "pass" {
		return &core.Principal{Name: "ann"}, nil
	}
	return nil, core.ErrUnauthenticated
}

func (guard) Authorize(_ *core.Principal, a core.Action, resource string) error {
	if strings.HasPrefix(resource, "private/") {
		return fmt.Errorf("%w to %s %s", core.ErrNotAuthorized, a, resource)
	}
	return nil
}
