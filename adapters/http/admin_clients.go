package http

import (
	"fmt"
	nethttp "net/http"
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

// listClients is GET /v1/clients: who is connected, over all protocols.
func (s *Server) listClients(w nethttp.ResponseWriter, r *nethttp.Request) {
	q := queryOf(r, clientList.parameters("protocol", "user")...)
	s.admin(w, r, nil, func(h *hold) error {
		p := clientList.page(&q, func(yield func(clientInfo) bool) {
			for c := range h.client.Clients() {
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
		})
		if q.err != nil {
			return q.err
		}
		answerList(s, w, r, p)
		return nil
	})
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
