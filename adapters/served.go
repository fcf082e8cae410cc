package adapters

import "net"

// A served is a connection and what serves it.
type served struct {
	server *Server
	conn   net.Conn
	socket *socket // the connection, where it can be parked
	by     Conn

	before, after *served // of the server's; guarded by its mutex
}

// open opens a connection that is counted as being served. k is the connection, or
// nil where it cannot be parked.
func (s *Server) open(c net.Conn, k *socket) *served {
	v := &served{server: s, conn: c, socket: k, by: s.serve.OpenConn(c)}
	s.add(v)
	select {
	case <-s.closing:
		v.by.Stop()
	default:
	}
	return v
}

// serve goes on with a connection until it ends, or rests and is parked.
func (v *served) serve() {
	for {
		rests, err := v.by.Serve()
		if !rests {
			v.end(err)
			return
		}
		if v.socket != nil {
			v.socket.park(v)
			return
		}
	}
}

// goOn serves on another goroutine. Of nil there is nothing to serve.
func (v *served) goOn() {
	if v != nil {
		go v.serve()
	}
}

func (v *served) end(err error) {
	s := v.server
	defer s.serving.Done()
	v.conn.Close()
	s.remove(v)
	if err != nil {
		s.log.Debug("connection ended", "remote", v.conn.RemoteAddr().String(), "err", err)
	}
}

func (s *Server) add(v *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v.after = s.first
	if s.first != nil {
		s.first.before = v
	}
	s.first = v
}

func (s *Server) remove(v *served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v.before == nil {
		s.first = v.after
	} else {
		v.before.after = v.after
	}
	if v.after != nil {
		v.after.before = v.before
	}
	v.before, v.after = nil, nil
}

// all are the connections that there are.
func (s *Server) all() (all []*served) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for v := s.first; v != nil; v = v.after {
		all = append(all, v)
	}
	return all
}
