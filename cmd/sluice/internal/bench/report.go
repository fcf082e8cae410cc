//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"text/tabwriter"
	"time"
)

// The names of the servers, in tables and in JSON.
const (
	sluiceName    = "sluice"
	mosquittoName = "mosquitto"
	rabbitmqName  = "rabbitmq"
	activemqName  = "activemq"
)

var serverNames = []string{sluiceName, mosquittoName, rabbitmqName, activemqName}

// writeJSON writes an outcome for programs.
func (o *outcome) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(o)
}

// writeTable writes an outcome for people. The ratio says how many times better
// Sluice is; above 1 it is ahead, whether more or less is better.
func (o *outcome) writeTable(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d cores, Linux %s, %s\n", o.Machine.CPU, o.Machine.Cores, o.Machine.Kernel, o.Machine.Go)
	if o.Machine.Sync > 0 {
		fmt.Fprintf(w, "disk: fdatasync %v (99%%: %v), writes %.0f MB/s in sequence\n",
			o.Machine.Sync.Round(time.Microsecond), o.Machine.SyncWorst.Round(time.Microsecond), o.Machine.Bandwidth)
	}
	for _, name := range serverNames {
		if v, ok := o.Versions[name]; ok {
			fmt.Fprintf(w, "%s: %s\n", name, v)
		}
	}
	fmt.Fprintf(w, "payload %d bytes, %g s each, median of %d\n\n", o.Size, o.Measure, o.Runs)

	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "sluice\tthe other\tratio\tgoal\t\n")
	for i := range o.Sets {
		s := &o.Sets[i]
		fmt.Fprintf(t, "\t\t\t\t  %s: %s\n", s.Name, s.About)
		for _, rival := range s.beside() {
			if rival != "" {
				fmt.Fprintf(t, "\t\t\t\t   beside %s\n", rival)
			}
			for _, line := range s.lines(rival) {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t    %s, %s\n", number(line.sluice), number(line.other), ratio(line.ratio), line.goal, line.name, line.unit)
			}
		}
		for _, name := range serverNames {
			for _, f := range s.Results[name].Faults {
				fmt.Fprintf(t, "\t\t\t\t    WRONG with %s: %s\n", name, f)
			}
		}
	}
	return t.Flush()
}

// beside are the rivals that were measured; only "" where none was.
func (s *set) beside() (names []string) {
	for _, name := range s.rivals {
		if _, ok := s.Results[name]; ok {
			names = append(names, name)
		}
	}
	if names == nil {
		return []string{""}
	}
	return names
}

// A line is one reading of both servers; what is not there is NaN.
type line struct {
	name, unit    string
	sluice, other float64
	ratio         float64
	goal          string
	missed        bool
}

// lines compares with a rival.
func (s *set) lines(rival string) (lines []line) {
	ours, theirs := s.Results[sluiceName], s.Results[rival]
	readings := ours.Readings
	if len(readings) == 0 {
		readings = theirs.Readings
	}
	for _, r := range readings {
		l := line{name: r.Name, unit: r.Unit, sluice: ours.value(r.Name), other: theirs.value(r.Name), ratio: math.NaN()}
		if !r.Aside {
			l.ratio = l.sluice / l.other
			if r.Lower {
				l.ratio = l.other / l.sluice
			}
		}
		for _, g := range s.goals {
			if g.reading == r.Name && (rival == "" || rival == s.rivals[0]) {
				l.judge(g, r.Lower)
			}
		}
		lines = append(lines, l)
	}
	return lines
}

// judge holds a line to a goal, where there is something to hold to it.
func (l *line) judge(g goal, lower bool) {
	var met, known bool
	if g.times > 0 {
		l.goal = fmt.Sprintf("%g×", g.times)
		met = l.ratio >= g.times
		known = !math.IsNaN(l.ratio)
	}
	if g.bound > 0 {
		if l.goal != "" {
			l.goal += " or "
		}
		if lower {
			l.goal += "≤ " + number(g.bound)
			met = met || l.sluice <= g.bound
		} else {
			l.goal += "≥ " + number(g.bound)
			met = met || l.sluice >= g.bound
		}
		known = known || !math.IsNaN(l.sluice)
	}
	switch {
	case met:
		l.goal += " met"
	case known:
		l.goal += " missed"
		l.missed = true
	}
}

// missed are the goals that were missed, and what was wrong with Sluice's runs.
func (o *outcome) missed() (all []string) {
	for i := range o.Sets {
		s := &o.Sets[i]
		for _, rival := range s.beside() {
			for _, l := range s.lines(rival) {
				if l.missed {
					all = append(all, fmt.Sprintf("%s: %s %s %s, goal %s", s.Name, l.name, number(l.sluice), l.unit, l.goal))
				}
			}
		}
		for _, f := range s.Results[sluiceName].Faults {
			all = append(all, fmt.Sprintf("%s: %s", s.Name, f))
		}
	}
	return all
}

func (r result) value(name string) float64 {
	for _, x := range r.Readings {
		if x.Name == name {
			return x.Value
		}
	}
	return math.NaN()
}

// number prints three significant digits, and all of a large number.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case v == 0 || math.Abs(v) >= 1000:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

func ratio(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return "–"
	}
	return number(v) + "×"
}
