package http

import (
	nethttp "net/http"

	"github.com/sluicemq/sluice/core"
)

// groupInfo describes a group on this door. A group is a queue; Queue is what
// /v1/queues calls it.
type groupInfo struct {
	Group     string      `json:"group"`
	Filter    core.Filter `json:"filter"`
	Queue     string      `json:"queue"`
	Position  core.Offset `json:"position"`
	Held      int         `json:"held"`
	Waiting   int         `json:"waiting"`
	Consumers int         `json:"consumers"`
}

// groupList is how groups are listed.
var groupList = listing[groupInfo]{
	name: func(g *groupInfo) string { return g.Queue },
	keys: map[string]func(*groupInfo) int64{
		"held":      func(g *groupInfo) int64 { return int64(g.Held) },
		"waiting":   func(g *groupInfo) int64 { return int64(g.Waiting) },
		"consumers": func(g *groupInfo) int64 { return int64(g.Consumers) },
		"position":  func(g *groupInfo) int64 { return int64(g.Position) },
	},
}

// listGroups is GET /v1/groups: those whose names begin with ?prefix=.
func (s *Server) listGroups(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, groupList.parameters("prefix")...)
	s.admin(w, r, nil, func(h *hold) error {
		p := groupList.page(&q, func(yield func(groupInfo) bool) {
			for info := range h.client.Queues(core.GroupQueuePrefix + q.string("prefix")) {
				group, filter, _ := core.GroupOf(info.Name)
				g := groupInfo{group, filter, info.Name, info.Position, info.Held, info.Waiting, info.Consumers}
				if !yield(g) {
					return
				}
			}
		})
		if q.err != nil {
			return q.err
		}
		answerList(s, w, r, p)
		return nil
	})
}
