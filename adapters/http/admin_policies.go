package http

import (
	nethttp "net/http"
	"slices"

	"github.com/sluicemq/sluice/core"
)

// policyInfo is a retention policy on this door. Age and bytes that are left
// out have no bound.
type policyInfo struct {
	Name    string        `json:"name"`
	Filters []core.Filter `json:"filters"`
	Age     span          `json:"age,omitempty"`
	Bytes   int64         `json:"bytes,omitempty"`
}

// listPolicies is GET /v1/policies: the retention policies of the
// configuration, in the order in which they are asked; with ?topic= the one
// that holds for it.
func (s *Server) listPolicies(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, "topic")
	if q.has("topic") {
		if err := core.CheckTopic(q.string("topic")); err != nil {
			q.fail(err)
		}
	}
	s.admin(w, r, nil, func(h *hold) error {
		if q.err != nil {
			return q.err
		}
		ps := h.client.Policies()
		if q.has("topic") {
			i := slices.IndexFunc(ps, func(p core.Policy) bool { return p.Matches(q.string("topic")) })
			if i < 0 {
				return notFound.with("no policy holds for the topic " + quote(q.string("topic")) + ": it is kept for ever")
			}
			ps = ps[i : i+1]
		}
		out := pageOf[policyInfo]{Items: make([]policyInfo, len(ps)), Total: len(ps)}
		for i, p := range ps {
			out.Items[i] = policyInfo{p.Name, p.Filters, span(p.Age), p.Bytes}
		}
		answerList(s, w, r, out)
		return nil
	})
}
