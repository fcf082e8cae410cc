package http

import (
	"fmt"
	"iter"
	nethttp "net/http"
	"strconv"
)

// clientInfo describes a client that is connected, on this door.
type clientInfo struct {
	Protocol  string `json:"protocol"`
	Client    string `json:"client"`
	User      string `json:"user,omitempty"`
	Remote    string `json:"remote,omitempty"`
	Since     int64  `json:"since"` // ms since 1970
	Consumers int    `json:"consumers"`

	number uint64
}

var clientList = listing[clientInfo]{
	// Several may have the same name.
	name: func(c *clientInfo) string { return fmt.Sprintf("%s/%s %016x", c.Protocol, c.Client, c.number) },
	keys: map[string]func(*clientInfo) int64{
		"since":     func(c *clientInfo) int64 { return c.Since },
		"consumers": func(c *clientInfo) int64 { return int64(c.Consumers) },
	},
}

// listClients is GET /v1/clients: who is connected, over all protocols. A page
// in the order in which they came begins where the one before ended; any other
// order goes through all of them.
func (s *Server) listClients(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, clientList.parameters("protocol", "user")...)
	s.admin(w, r, nil, func(h *hold) error {
		if by := q.string("sort"); by != "" && by != "since" {
			p := clientList.page(&q, clientsBehind(h, &q, 0))
			if q.err == nil {
				answerList(s, w, r, p)
			}
			return q.err
		}
		limit := q.int("limit", listPage, 1, listMost)
		after, err := strconv.ParseUint(q.string("after"), 10, 64)
		if err != nil && q.has("after") {
			q.bad("after", afterWanted)
		}
		if q.err != nil {
			return q.err
		}
		p := scanOf[clientInfo]{Items: []clientInfo{}}
		for info := range clientsBehind(h, &q, after) {
			if len(p.Items) == limit {
				p.Next = strconv.FormatUint(p.Items[limit-1].number, 10)
				break
			}
			p.Items = append(p.Items, info)
		}
		s.answerTagged(w, r, 200, p, tagOf(p))
		return nil
	})
}

// clientsBehind are the clients behind a number that a query asks for.
func clientsBehind(h *hold, q *query, number uint64) iter.Seq[clientInfo] {
	return func(yield func(clientInfo) bool) {
		for c := range h.client.Clients(number) {
			if q.has("protocol") && c.Protocol != q.string("protocol") || q.has("user") && c.User != q.string("user") {
				continue
			}
			info := clientInfo{Protocol: c.Protocol, Client: c.Client, User: c.User, Since: c.Since.UnixMilli(), Consumers: c.Consumers, number: c.Number}
			if c.Remote != nil {
				info.Remote = c.Remote.String()
			}
			if !yield(info) {
				return
			}
		}
	}
}

// disconnect is DELETE /v1/clients/<protocol>/<client>. The client is told in
// its protocol's words, and may come again.
func (s *Server) disconnect(w nethttp.ResponseWriter, r *nethttp.Request) error {
	q := queryOf(r)
	protocol, client := q.segment("protocol"), q.segment("client")
	h, err := s.begin(r, &q)
	if err != nil {
		return err
	}
	defer h.release()
	n, err := h.client.Disconnect(protocol, client)
	if err != nil {
		return err
	}
	if n == 0 {
		return notFound.with("no other client " + quote(client) + " is connected over " + quote(protocol))
	}
	s.answerNothing(w)
	return nil
}
