package http

import (
	_ "embed"
	nethttp "net/http"
	"strconv"
)

// openapi is the description of this door, written by hand; a test holds it
// against the router.
//
//go:embed openapi.json
var openapi []byte

// asyncapi describes, likewise, what the broker sends by itself.
//
//go:embed asyncapi.json
var asyncapi []byte

// front is GET /: how to try it.
func (s *Server) front(w nethttp.ResponseWriter, r *nethttp.Request) {
	host := r.Host
	if ascii, plain := inspect(host); !ascii || !plain || host == "" {
		host = "127.0.0.1:8080"
	}
	h := w.Header()
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["X-Content-Type-Options"] = nosniff
	s.writeAll(w, []byte(`Sluice: one log, many protocols.

Try it:

  http://`+host+`/try                    in a browser: publish and watch

  curl -N `+host+`/sse/hello             what comes to the topic hello, as it comes
  curl -d 'it works' `+host+`/t/hello    publish to it
  curl `+host+`/t/hello                  the last 20 messages
  curl `+host+`/t/hello?from=earliest    all of them, from the first that is kept
  curl `+host+`/t/hello?wait=30s         wait for the next one

  curl -d 'job 1' `+host+`/q/jobs                 put into a queue
  curl -X POST `+host+`/q/jobs/lease              take from it, with a token
  curl -X POST `+host+`/lease/TOKEN/accept        done

  curl -d 21.5 `+host+`/t/room/1/temp?retain      publish and retain
  curl `+host+`/last/room/1/temp                  the retained value

Also here: /q/QUEUE (browse), /x/EXCHANGE/KEY (publish to an exchange),
/v1/queues and /v1/exchanges (administration), /healthz, /readyz,
/openapi.json (every path and parameter).
`))
}

// healthy is GET /healthz: the process answers.
func (s *Server) healthy(w nethttp.ResponseWriter, _ *nethttp.Request) { s.answerWord(w, "ok\n") }

// ready is GET /readyz: the broker takes requests, its log has not failed, and
// the server does not stop.
func (s *Server) ready(w nethttp.ResponseWriter, _ *nethttp.Request) error {
	if s.stopping.Err() != nil {
		return shuttingDown.with("the server is stopping")
	}
	if err := s.broker.Err(); err != nil {
		return err
	}
	s.answerWord(w, "ready\n")
	return nil
}

// description is GET of a description, which does not change while the broker runs:
// like an asset, a cache may keep it but asks before it uses it.
func (s *Server) description(body []byte) nethttp.HandlerFunc {
	tag := tagOfBytes(body)
	return func(w nethttp.ResponseWriter, r *nethttp.Request) {
		h := w.Header()
		h["Cache-Control"] = []string{"no-cache"}
		if s.answerByTag(w, r, tag) {
			return
		}
		h["Content-Type"] = jsonTypes
		h["X-Content-Type-Options"] = nosniff
		body := compress(w, body)
		h["Content-Length"] = []string{strconv.Itoa(len(body))}
		s.writeAll(w, body)
	}
}

func (s *Server) answerWord(w nethttp.ResponseWriter, word string) {
	h := w.Header()
	h["Content-Type"] = []string{"text/plain; charset=utf-8"}
	h["Cache-Control"] = noStore
	s.writeAll(w, []byte(word))
}
