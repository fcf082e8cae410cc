package main

import (
	"io"
	"log/slog"
	"net"
	nethttp "net/http"
	"net/http/pprof"
	"os"
	"runtime/debug"
	"time"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/lmittmann/tint"
	"golang.org/x/term"

	"github.com/sluicemq/sluice/configs"
)

// newLogger makes the log; level is set to the configured one and can be
// changed later.
func newLogger(c configs.Log, level *slog.LevelVar, to *os.File) *slog.Logger {
	level.Set(c.Level.Slog())
	terminal := term.IsTerminal(int(to.Fd()))
	var h slog.Handler
	switch {
	case c.Format == "auto" && terminal:
		h = tint.NewTextHandler(to, &tint.Options{Level: level, TimeFormat: time.TimeOnly})
	case c.Format == "text":
		h = slog.NewTextHandler(io.Writer(to), &slog.HandlerOptions{Level: level})
	default:
		h = slog.NewJSONHandler(to, &slog.HandlerOptions{Level: level})
	}
	return slog.New(h)
}

// memoryShare is how much of what the machine or its control group has the
// process aims to stay under.
const memoryShare = 0.9

// roomForFiles is for how many open files there is room from the beginning, which is
// half a megabyte of the kernel's memory.
const roomForFiles = 65_536

// settleProcess raises the limit of open files, sets that of memory, and says how
// often that is collected.
func settleProcess(cfg *configs.Config, log *slog.Logger) {
	startHeapPacer()
	n, err := raiseOpenFiles()
	if err != nil {
		log.Warn("the limit of open files was not raised: there may be too few connections", "limit", n, "err", err)
	}
	makeRoomForFiles(min(n, roomForFiles))
	if cfg.Memory.Limit > 0 {
		debug.SetMemoryLimit(int64(cfg.Memory.Limit))
		return
	}
	// GOMEMLIMIT, where it is set, wins.
	if _, err := memlimit.Set(
		memlimit.WithRatio(memoryShare),
		memlimit.WithProvider(memlimit.ApplyFallback(memlimit.FromCgroup, memlimit.FromSystem)),
	); err != nil {
		log.Warn("the machine's memory is not known: no limit is set", "err", err)
	}
}

// startDebug serves Go's profiles, where they are configured.
func (g *gateway) startDebug() error {
	if g.config.Debug.Pprof == "" {
		return nil
	}
	l, err := net.Listen("tcp", g.config.Debug.Pprof)
	if err != nil {
		return err
	}
	mux := nethttp.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	g.debug = &nethttp.Server{Handler: localOnly(mux), ReadHeaderTimeout: 5 * time.Second, ErrorLog: slog.NewLogLogger(g.log.Handler(), slog.LevelDebug)}
	go g.debug.Serve(l)
	return nil
}

// localOnly refuses requests by another name than a loopback address's, which
// a page in a browser could have made.
func localOnly(h nethttp.Handler) nethttp.Handler {
	return nethttp.HandlerFunc(func(w nethttp.ResponseWriter, r *nethttp.Request) {
		host := r.Host
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(host, "80")
		}
		if !configs.Loopback(host) || r.Header.Get("Origin") != "" {
			nethttp.Error(w, "only for this machine", nethttp.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}
