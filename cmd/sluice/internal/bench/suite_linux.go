package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"time"
)

// A suite runs scenarios on servers that it starts itself, each run on a fresh
// one with an empty data folder, the servers in turn.
type suite struct {
	kinds     []kind
	scenarios []scenario
	runs      int
	span      span
	scale     float64
	size      int
	pause     time.Duration
	dir       string // holds the servers' data and output
	profiles  string // holds profiles of the Sluice under test, empty for none
	progress  io.Writer
}

// An outcome is what a suite has found out.
type outcome struct {
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Runs     int               `json:"runs"`
	Measure  float64           `json:"seconds"`
	Scale    float64           `json:"scale"`
	Size     int               `json:"payload_bytes"`
	Sets     []set             `json:"scenarios"`
}

// A set is one scenario on all servers.
type set struct {
	Name  string `json:"name"`
	About string `json:"about"`
	// Results by server, each reading the median of the runs.
	Results map[string]result `json:"results"`
	rivals  []string
	goals   []goal
}

func (s *suite) run(ctx context.Context) (*outcome, error) {
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, err
	}
	o := &outcome{Versions: map[string]string{}, Runs: s.runs, Measure: s.span.measure.Seconds(), Scale: s.scale, Size: s.size}
	for _, k := range s.kinds {
		v, err := k.version()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", k.name, err)
		}
		o.Versions[k.name] = v
	}
	var err error
	if o.Machine, err = surveyMachine(s.dir); err != nil {
		return nil, err
	}
	for _, sc := range s.scenarios {
		results := map[string][]result{}
		for i := range s.runs {
			for _, k := range s.kinds {
				if k.name != sluiceName && !slices.Contains(sc.rivals, k.name) {
					continue
				}
				fmt.Fprintf(s.progress, "%s on %s, run %d of %d\n", sc.name, k.name, i+1, s.runs)
				r, err := s.once(ctx, sc, k, o.Machine)
				if err != nil {
					return o, fmt.Errorf("%s on %s: %w", sc.name, k.name, err)
				}
				results[k.name] = append(results[k.name], r)
			}
		}
		set := set{Name: sc.name, About: sc.about, Results: map[string]result{}, rivals: sc.rivals, goals: o.resolved(sc.goals)}
		for name, rs := range results {
			set.Results[name] = median(rs)
		}
		o.Sets = append(o.Sets, set)
	}
	return o, nil
}

// resolved makes bounds of the goals that name a scenario that has been run, and
// leaves out those that name another.
func (o *outcome) resolved(goals []goal) (all []goal) {
	for _, g := range goals {
		if g.of == "" {
			all = append(all, g)
			continue
		}
		for i := range o.Sets {
			if value := o.Sets[i].Results[sluiceName].value(g.reading); o.Sets[i].Name == g.of && !math.IsNaN(value) {
				all = append(all, goal{reading: g.reading, bound: g.times * value})
			}
		}
	}
	return all
}

// once runs a scenario on a server started for it.
func (s *suite) once(ctx context.Context, sc scenario, k kind, disk machine) (result, error) {
	dir, err := os.MkdirTemp(s.dir, k.name+"-")
	if err != nil {
		return result{}, err
	}
	// Mosquitto gives up root's rights, and must still read its configuration.
	if err := os.Chmod(dir, 0o755); err != nil {
		return result{}, err
	}
	defer func() { // after the server has ended
		os.RemoveAll(dir)
		os.Remove(dir + ".log")
	}()
	d := &dialer{}
	srv := &server{kind: k, dir: dir}
	if !sc.inProcess {
		if srv, err = k.start(ctx, dir, d); err != nil {
			return result{}, err
		}
		defer srv.stop() // after the profile's, which is deferred later
	}
	r := &rig{server: srv, root: dir, disk: disk, dialer: d, span: s.span, scale: s.scale, size: s.size, pause: s.pause, settle: s.settle()}
	if s.profiles != "" && sc.inProcess {
		stop, err := s.ownProfile(sc.name)
		if err != nil {
			return result{}, err
		}
		defer stop()
	} else if s.profiles != "" && k.name == sluiceName {
		done := make(chan error, 1)
		go func() { done <- s.profile(ctx, sc.name, srv.pprof) }()
		defer func() {
			if err := <-done; err != nil {
				fmt.Fprintf(s.progress, "no profile of %s: %v\n", sc.name, err)
			}
		}()
	}
	out, err := sc.run(ctx, r)
	if err != nil {
		if said := tail(dir + ".log"); said != "" {
			err = fmt.Errorf("%w; the server said: %s", err, said)
		}
	}
	return out, err
}

// settle is how far apart readings of memory are; a run in small needs no
// exact ones.
func (s *suite) settle() time.Duration {
	return min(500, max(5, time.Duration(2500*s.scale))) * time.Millisecond
}

// profile takes a CPU profile for as long as the measuring lasts, and then one
// of the heap and of all allocations.
func (s *suite) profile(ctx context.Context, name, addr string) error {
	if err := os.MkdirAll(s.profiles, 0o755); err != nil {
		return err
	}
	seconds := max(1, int((s.span.warm + s.span.measure).Seconds()))
	err := fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", addr, seconds), filepath.Join(s.profiles, name+".cpu.pprof"))
	if err != nil {
		return err
	}
	return fetch(ctx, fmt.Sprintf("http://%s/debug/pprof/allocs", addr), filepath.Join(s.profiles, name+".heap.pprof"))
}

// ownProfile takes a CPU profile of this process until stop is called.
func (s *suite) ownProfile(name string) (stop func(), err error) {
	if err := os.MkdirAll(s.profiles, 0o755); err != nil {
		return nil, err
	}
	f, err := os.Create(filepath.Join(s.profiles, name+".cpu.pprof"))
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		f.Close()
	}, nil
}

// fetch writes what is at a URL into a file.
func fetch(ctx context.Context, url, file string) error {
	body, err := ask(ctx, http.MethodGet, url)
	if err != nil {
		return err
	}
	return os.WriteFile(file, body, 0o644)
}

// median takes each reading's median, and all faults.
func median(rs []result) result {
	m := result{Readings: slices.Clone(rs[0].Readings)}
	for i := range m.Readings {
		var values []float64
		for _, r := range rs {
			values = append(values, r.Readings[i].Value)
		}
		slices.Sort(values)
		n := len(values)
		m.Readings[i].Value = (values[(n-1)/2] + values[n/2]) / 2
	}
	for _, r := range rs {
		m.Faults = append(m.Faults, r.Faults...)
	}
	return m
}
