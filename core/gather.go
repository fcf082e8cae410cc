package core

import "time"

// A gathering is what a journal knows of whether it is worth to wait a moment
// before the next commit, for those whom the last one has confirmed.
//
// Publishers with a bound on what is unconfirmed come in two halves otherwise:
// while one half is synced the other is handed in, so that each sync serves half
// of them, and each waits for two. If those who were just confirmed come again in
// much less time than a sync takes, one sync can serve all. Whether they do is
// tried; where they did not, it is tried again only after many commits.
//
// It belongs to whoever made the journal busy.
type gathering struct {
	began time.Time     // when the engine got the outstanding commit
	sync  time.Duration // what a commit took lately
	rest  int           // so many commits are not waited for
	vain  int           // what rest was when waiting was in vain
	yield func()        // gives the processor away
}

const (
	// gatherMin is how many must have been confirmed at once. Fewer gain less
	// than the processor time that it costs to wait for them: 64 connections
	// that publish over HTTP lost 8% by it.
	gatherMin = 128
	// gatherMax bounds the time that is waited.
	gatherMax = 200 * time.Microsecond
	// gatherRest bounds how many commits go by before waiting is tried again.
	gatherRest = 1024
	// gatherYields bounds how often the processor is given away meanwhile, also
	// where clocks stand still.
	gatherYields = 4096
	// gatherLook is how often it is seen who has come.
	gatherLook = 4 * time.Microsecond
)

// begin says that the engine gets a commit.
func (g *gathering) begin() { g.began = time.Now() }

// end says that the engine is done with it.
func (g *gathering) end() { g.sync += (time.Since(g.began) - g.sync) / 4 }

// gather waits for those whom a commit with so many entries has confirmed, where
// that is worth it: not for longer than half of a sync, and not where more are
// waiting than are waited for. It does not sleep, since nothing that sleeps is
// woken in so short a time.
func (j *journal) gather(confirmed int) {
	g := &j.gathering
	if confirmed < gatherMin {
		return
	}
	if g.rest > 0 {
		g.rest--
		return
	}
	waiting := j.waiting()
	if waiting > confirmed {
		return
	}
	bound := min(g.sync/2, gatherMax)
	began := time.Now()
	looked := began
	for range gatherYields {
		g.yield()
		now := time.Now()
		if now.Sub(looked) < gatherLook {
			continue
		}
		looked = now
		if j.waiting() >= waiting+confirmed {
			g.vain = 0
			return
		}
		if now.Sub(began) > bound {
			break
		}
	}
	g.vain = min(max(2*g.vain, 1), gatherRest)
	g.rest = g.vain
}

// waiting is how many publishes wait for the next commit.
func (j *journal) waiting() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.pending.entries)
}
