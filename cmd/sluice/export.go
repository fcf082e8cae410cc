package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluicemq/sluice/cmd/sluice/internal/link"
	"github.com/sluicemq/sluice/core"
)

// exportPage is how many messages are asked for at once.
const exportPage = 10_000

func newExport() *cobra.Command {
	var a administering
	var from, until string
	c := &cobra.Command{
		Use:   "export FILTER",
		Short: "Write what the log holds as lines of JSON",
		Long: `Writes the messages of a filter to standard output, one as JSON a line, as they
were in the log when the command began. sluice import publishes such lines
again.`,
		Example: `  sluice export '#' > all.ndjson
  sluice export 'plant/#' --from @24h | gzip > plant.ndjson.gz
  sluice export 'plant/#' --from 1000 --until 2000`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			if _, err := core.ParseFilter(args[0]); err != nil {
				return usageError{err}
			}
			now := time.Now()
			begin, err := core.ParseFrom(from, now)
			if err != nil {
				return usageError{fmt.Errorf("--from: %w", err)}
			}
			end, err := parseUntil(until, now)
			if err != nil {
				return usageError{fmt.Errorf("--until: %w", err)}
			}
			options, err := a.options()
			if err != nil {
				return err
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			out := bufio.NewWriterSize(c.OutOrStdout(), 256<<10)
			e := exporting{h: link.NewHTTP(options), path: "/t/" + link.EscapeTopic(args[0]), until: end, to: out}
			err = e.run(ctx, begin)
			if ferr := out.Flush(); err == nil {
				err = ferr
			}
			for _, gap := range e.gaps {
				fmt.Fprintf(c.ErrOrStderr(), "offsets %s are not there any more\n", gap)
			}
			if err != nil && e.next > 0 {
				return fmt.Errorf("%w; %d messages were written, go on with --from %d", err, e.n, e.next)
			}
			return err
		},
	}
	c.Flags().StringVar(&from, "from", "earliest", "`where` to begin: earliest, an offset (1042), the last n (-100), a time ago (@2h) or a moment (@2026-11-01T08:00:00Z)")
	c.Flags().StringVar(&until, "until", "", "`where` to end, exclusive: an offset, a time ago or a moment (default: what is there now)")
	a.via = "http"
	a.flags(c.Flags(), false)
	return c
}

// An ending is where an export ends: at an offset, or at a time.
type ending struct {
	offset core.Offset
	time   int64 // in milliseconds since 1970
}

func parseUntil(s string, now time.Time) (e ending, err error) {
	if s == "" {
		return e, nil
	}
	if n, err := strconv.ParseUint(s, 10, 63); err == nil && n > 0 {
		e.offset = core.Offset(n)
		return e, nil
	}
	f, err := core.ParseFrom(s, now)
	if err != nil {
		return e, err
	}
	moment, ok := strings.CutPrefix(f.String(), "@")
	at, err := time.Parse(time.RFC3339Nano, moment)
	if !ok || err != nil {
		return e, fmt.Errorf("%q: want an offset, a time ago such as @2h, or a moment", s)
	}
	e.time = at.UnixMilli()
	return e, nil
}

// An exporting is one run of export.
type exporting struct {
	h     *link.HTTP
	path  string
	until ending
	to    io.Writer

	n    int
	next core.Offset // where to go on
	gaps []string
}

func (e *exporting) run(ctx context.Context, from core.From) error {
	if e.until.offset == 0 {
		// A busy broker's log never ends.
		p, err := e.h.Lines(ctx, e.path+"?from=latest&limit=1")
		if err != nil {
			return err
		}
		e.until.offset = p.Next
	}
	query := url.Values{"from": {from.String()}, "until": {strconv.FormatUint(uint64(e.until.offset), 10)}, "limit": {strconv.Itoa(exportPage)}}
	for {
		p, err := e.h.Lines(ctx, e.path+"?"+query.Encode())
		if err != nil {
			return err
		}
		e.gaps = append(e.gaps, p.Gaps...)
		lines, n, over := e.until.cut(p.Lines)
		if _, err := e.to.Write(lines); err != nil {
			return err
		}
		e.n += n
		if over || p.Next >= e.until.offset || !p.More && p.Next <= e.next {
			return nil
		}
		e.next = p.Next
		query.Set("from", strconv.FormatUint(uint64(p.Next), 10))
	}
}

// cut leaves out the lines at and behind the time that an export ends at.
func (e *ending) cut(lines []byte) (within []byte, n int, over bool) {
	if e.time == 0 {
		return lines, bytes.Count(lines, []byte("\n")), false
	}
	for rest := lines; len(rest) > 0; n++ {
		line := rest
		if i := bytes.IndexByte(rest, '\n'); i >= 0 {
			line = rest[:i+1]
		}
		var m struct {
			TS int64 `json:"ts"`
		}
		if err := json.Unmarshal(line, &m); err == nil && m.TS >= e.time {
			return lines[:len(lines)-len(rest)], n, true
		}
		rest = rest[len(line):]
	}
	return lines, n, false
}

const (
	// importLines and importBytes bound what is published at once.
	importLines = 1000
	importBytes = 4 << 20
)

func newImport() *cobra.Command {
	var a administering
	var skip int
	var origin bool
	c := &cobra.Command{
		Use:   "import [FILE]",
		Short: "Publish lines of JSON",
		Long: `Publishes the messages of a file, or of standard input, one as JSON a line, such
as sluice export writes them, in their order and each to its topic. Lines of a
message without an id get one that tells where they were exported from, so that
an import that was interrupted can be repeated within the broker's
limits.dedup_window: what is there already is not published a second time.`,
		Example: `  sluice import all.ndjson
  zcat plant.ndjson.gz | sluice import --origin -b other-broker`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, args []string) error {
			options, err := a.options()
			if err != nil {
				return err
			}
			in := c.InOrStdin()
			if len(args) > 0 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer f.Close()
				in = f
			}
			ctx, stop := interruptible(c.Context())
			defer stop()
			i := importing{h: link.NewHTTP(options), origin: origin, skip: skip}
			if err := i.run(ctx, in); err != nil {
				return fmt.Errorf("%w; what was confirmed need not be repeated: --skip %d", err, i.confirmed)
			}
			return a.show(c.OutOrStdout(), map[string]int{"published": i.published, "repeated": i.repeated}, func(w io.Writer) {
				fmt.Fprintf(w, "published\t%d\nthere already\t%d\n", i.published, i.repeated)
			})
		},
	}
	c.Flags().IntVar(&skip, "skip", 0, "leave out so many `lines`")
	c.Flags().BoolVar(&origin, "origin", false, "tell offset, time and publisher of before in headers")
	a.outputFlag(c)
	a.via = "http"
	a.flags(c.Flags(), false)
	return c
}

// An importing is one run of import.
type importing struct {
	h      *link.HTTP
	origin bool
	skip   int

	confirmed           int // lines from the first on, those left out included
	published, repeated int
}

func (i *importing) run(ctx context.Context, from io.Reader) error {
	in := bufio.NewReaderSize(from, 256<<10)
	var batch []byte
	lines, read := 0, 0
	for {
		line, err := in.ReadBytes('\n')
		ended := errors.Is(err, io.EOF)
		if err != nil && !ended {
			return err
		}
		if line = bytes.TrimSpace(line); len(line) > 0 {
			read++
			if read <= i.skip {
				i.confirmed = read
			} else {
				text, bad := i.prepare(line)
				if bad != nil {
					if err := i.publish(ctx, batch, lines); err != nil {
						return err
					}
					return fmt.Errorf("line %d: %w", read, bad)
				}
				batch = append(append(batch, text...), '\n')
				lines++
			}
		}
		if lines >= importLines || len(batch) >= importBytes || ended {
			if err := i.publish(ctx, batch, lines); err != nil {
				return err
			}
			batch, lines = batch[:0], 0
		}
		if ended {
			return nil
		}
	}
}

// publish publishes a batch of so many lines. Blank ones are not counted
// anywhere.
func (i *importing) publish(ctx context.Context, batch []byte, lines int) error {
	if lines == 0 {
		return nil
	}
	answers, err := i.h.PublishLines(ctx, batch)
	for n, a := range answers {
		if a.Err != nil {
			i.confirmed += n
			return fmt.Errorf("line %d was refused: %s: %s", i.confirmed+1, a.Err.Title, a.Err.Detail)
		}
		if a.Duplicate {
			i.repeated++
		} else {
			i.published++
		}
	}
	if err != nil {
		i.confirmed += len(answers)
		return err
	}
	i.confirmed += len(answers)
	if len(answers) != lines {
		return fmt.Errorf("the broker answered for %d of %d lines", len(answers), lines)
	}
	return nil
}

// An exported message is what prepare looks at of a line; the rest is passed on
// as it stands.
type exported struct {
	Offset    uint64          `json:"o"`
	Time      int64           `json:"ts"`
	ID        string          `json:"id"`
	Headers   json.RawMessage `json:"h"`
	Publisher struct {
		User     string `json:"user"`
		Client   string `json:"client"`
		Protocol string `json:"via"`
	} `json:"pub"`
}

// prepare makes a line that can be published of one that was exported: it gets
// an id, and with --origin headers. All other bytes stay.
func (i *importing) prepare(line []byte) ([]byte, error) {
	var m exported
	if err := json.Unmarshal(line, &m); err != nil {
		return nil, fmt.Errorf("it is not a message as JSON: %w", err)
	}
	end := bytes.LastIndexByte(line, '}')
	if end < 0 {
		return nil, errors.New("it is not a JSON object")
	}
	add := map[string]any{}
	if m.ID == "" && m.Offset > 0 {
		add["id"] = fmt.Sprintf("export-%d-%d", m.Time, m.Offset)
	}
	if i.origin {
		headers, err := link.ParseHeaders(m.Headers)
		if err != nil {
			return nil, err
		}
		pairs := [][2]string{}
		for _, h := range headers {
			pairs = append(pairs, [2]string{h.Name, h.Value})
		}
		for _, h := range [][2]string{
			{"origin-offset", strconv.FormatUint(m.Offset, 10)}, {"origin-time", strconv.FormatInt(m.Time, 10)},
			{"origin-user", m.Publisher.User}, {"origin-client", m.Publisher.Client}, {"origin-protocol", m.Publisher.Protocol},
		} {
			if h[1] != "" && h[1] != "0" {
				pairs = append(pairs, h)
			}
		}
		if len(pairs) > 0 {
			// Of a member that is there twice the last one holds.
			add["h"] = pairs
		}
	}
	if len(add) == 0 {
		return line, nil
	}
	more, err := json.Marshal(add)
	if err != nil {
		return nil, err
	}
	out := append(make([]byte, 0, len(line)+len(more)+1), line[:end]...)
	if len(bytes.TrimSpace(line[1:end])) > 0 {
		out = append(out, ',')
	}
	return append(out, more[1:]...), nil
}
