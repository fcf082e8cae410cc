package http

import (
	nethttp "net/http"

	"github.com/sluicemq/sluice/core"
)

// retainedInfo describes a retained value on this door; GET /last/ has the
// value itself.
type retainedInfo struct {
	Topic  string      `json:"topic"`
	Offset core.Offset `json:"offset"`
	Time   int64       `json:"time"` // ms since 1970
	Bytes  int         `json:"bytes"`
	Type   string      `json:"type,omitempty"`
}

// A scanOf is a page of a list that is read in the order of names and whose
// length nobody knows.
type scanOf[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty"`
}

// listRetained is GET /v1/retained: of which topics there are retained values,
// by topic, those that ?filter= matches.
func (s *Server) listRetained(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, "filter", "after", "limit")
	limit := q.int("limit", listPage, 1, listMost)
	filter := q.pattern("#")
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		p := scanOf[retainedInfo]{Items: []retainedInfo{}}
		for d, err := range h.client.Retained(r.Context(), filter, q.string("after")) {
			if err != nil {
				return err
			}
			if len(p.Items) == limit {
				p.Next = p.Items[limit-1].Topic
				break
			}
			d := d.Clone()
			p.Items = append(p.Items, retainedInfo{d.Topic, d.Offset, d.Time.UnixMilli(), len(d.Payload), d.ContentType})
		}
		s.answerTagged(w, r, 200, p, tagOf(p))
		return nil
	})
}
