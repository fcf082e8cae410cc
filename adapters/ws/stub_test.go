package ws

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// A stub is a connection whose input is known and whose output is thrown away.
type stub struct{ in *bytes.Reader }

func (s *stub) Read(p []byte) (int, error)       { return s.in.Read(p) }
func (s *stub) Write(p []byte) (int, error)      { return len(p), nil }
func (s *stub) Close() error                     { return nil }
func (s *stub) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *stub) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *stub) SetDeadline(time.Time) error      { return nil }
func (s *stub) SetReadDeadline(time.Time) error  { return nil }
func (s *stub) SetWriteDeadline(time.Time) error { return nil }

// stubWriter is a response that hands out a connection.
type stubWriter struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

func (w stubWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return w.conn, bufio.NewReadWriter(bufio.NewReaderSize(bytes.NewReader(nil), 16), bufio.NewWriterSize(nil, 16)), nil
}

// upgradeStub makes the library's connection over another without a handshake.
func upgradeStub(t testing.TB, conn net.Conn) *websocket.Conn {
	r := httptest.NewRequest(http.MethodGet, "/ws", nil)
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Version": "13", "Sec-Websocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		r.Header.Set(k, v)
	}
	u := websocket.Upgrader{ReadBufferSize: 1024, WriteBufferSize: 1024}
	ws, err := u.Upgrade(stubWriter{httptest.NewRecorder(), conn}, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}
