package http

import (
	nethttp "net/http"

	"github.com/sluicemq/sluice/core"
)

// topicInfo describes on this door what the log holds of a topic.
type topicInfo struct {
	Topic    string      `json:"topic"`
	Messages int64       `json:"messages"`
	Bytes    int64       `json:"bytes"`
	Last     core.Offset `json:"last"` // the last message's offset
}

// listTopics is GET /v1/topics: the topics that the log holds messages of, by
// topic, those that ?filter= matches and the caller may read.
func (s *Server) listTopics(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, "filter", "after", "limit")
	limit := q.int("limit", listPage, 1, listMost)
	filter := q.pattern("#")
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		sums, err := h.client.Topics(r.Context(), filter, q.string("after"), limit+1)
		if err != nil {
			return err
		}
		p := scanOf[topicInfo]{Items: []topicInfo{}}
		if len(sums) > limit {
			sums = sums[:limit]
			p.Next = sums[limit-1].Topic
		}
		for _, t := range sums {
			p.Items = append(p.Items, topicInfo{t.Topic, t.Records, t.Bytes, t.Last})
		}
		s.answerTagged(w, r, 200, p, tagOf(p))
		return nil
	})
}
