package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	nethttp "net/http"
	"time"

	"github.com/sluicemq/sluice/adapters/http"
	"github.com/sluicemq/sluice/cmd/sluice/internal/backup"
	"github.com/sluicemq/sluice/core"
	"github.com/sluicemq/sluice/storage/seglog"
)

const (
	// backupPath is where backups are asked for.
	backupPath = "/v1/backup"
	// backupTopic is what somebody must be allowed to manage who may copy the
	// whole log.
	backupTopic = "$SYS/backup"
	// backupRequestBytes bounds the list of what the receiver has.
	backupRequestBytes = 64 << 20
	// backupRequestTime is how long that list may take to come.
	backupRequestTime = time.Minute
)

// A backupServer streams snapshots of the log, one at a time.
type backupServer struct {
	log   *slog.Logger
	of    *seglog.Log
	stall time.Duration // how long the receiver may take nothing

	ctx  context.Context // ends when close begins
	stop context.CancelFunc
	one  chan struct{} // held by the one that runs
}

func newBackupServer(of *seglog.Log, stall time.Duration, log *slog.Logger) *backupServer {
	s := &backupServer{log: log, of: of, stall: stall, one: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(context.Background())
	return s
}

// close ends the backup that runs and waits for it.
func (s *backupServer) close() {
	s.stop()
	s.one <- struct{}{}
}

// ServeHTTP answers a request with the stream of a backup. The connection is
// cut where it cannot be completed.
func (s *backupServer) ServeHTTP(w nethttp.ResponseWriter, r *nethttp.Request) {
	select {
	case <-s.ctx.Done():
		s.refuse(w, core.ErrClosed)
		return
	case s.one <- struct{}{}:
		defer func() { <-s.one }()
	default:
		s.refuse(w, fmt.Errorf("%w: a backup is running; wait until it has ended", core.ErrInUse))
		return
	}
	var request backup.Request
	rc := nethttp.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Now().Add(backupRequestTime)); err != nil {
		return // the connection is gone
	}
	d := json.NewDecoder(nethttp.MaxBytesReader(w, r.Body, backupRequestBytes))
	d.DisallowUnknownFields()
	if err := d.Decode(&request); err != nil && !errors.Is(err, io.EOF) {
		s.refuse(w, fmt.Errorf("%w: the body: %w", core.ErrInvalid, err))
		return
	}
	if err := rc.SetReadDeadline(time.Time{}); err != nil {
		return
	}
	began := time.Now()
	snapshot, err := s.of.Snapshot(r.Context())
	if err != nil {
		s.log.Error("backup failed", "err", err)
		s.refuse(w, err)
		return
	}
	first, end := snapshot.First, snapshot.End
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Cache-Control", "no-store")
	out := &patientWriter{w: w, rc: rc, ctx: s.ctx, stall: s.stall}
	err = errors.Join(backup.Send(out, snapshot, request), snapshot.Close())
	if err != nil {
		s.log.Warn("backup not completed", "err", err)
		if out.n == 0 {
			s.refuse(w, fmt.Errorf("%w: %w", core.ErrInvalid, err))
			return
		}
		panic(nethttp.ErrAbortHandler) // so that the receiver knows
	}
	s.log.Info("backup sent", "first", uint64(first), "end", uint64(end), "bytes", out.n, "took", time.Since(began).Round(time.Millisecond))
}

// refuse answers with a problem.
func (s *backupServer) refuse(w nethttp.ResponseWriter, err error) {
	if nethttp.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.stall)) == nil {
		http.Refuse(w, err)
	}
}

// A patientWriter gives the peer a while for each piece, not for the whole.
type patientWriter struct {
	w     io.Writer
	rc    *nethttp.ResponseController
	ctx   context.Context
	stall time.Duration
	n     int64
}

func (p *patientWriter) Write(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, errors.New("the broker is stopping")
	}
	if err := p.rc.SetWriteDeadline(time.Now().Add(p.stall)); err != nil {
		return 0, err
	}
	n, err := p.w.Write(b)
	p.n += int64(n)
	return n, err
}
