package adapters

import (
	"reflect"
	"testing"
	"time"
)

// TestTableIsWhole holds that every field of Limits has one row, with a name
// of its own.
func TestTableIsWhole(t *testing.T) {
	l := DefaultLimits()
	fields := make(map[any]string)
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		for i := range v.NumField() {
			if v.Field(i).Kind() == reflect.Struct {
				walk(v.Field(i))
				continue
			}
			fields[v.Field(i).Addr().Interface()] = v.Type().Field(i).Name
		}
	}
	walk(reflect.ValueOf(&l).Elem())
	names := make(map[string]bool)
	for _, row := range l.Table() {
		if _, ok := fields[row.Value]; !ok {
			t.Errorf("%s points nowhere, or where another row does", row.Name)
		}
		delete(fields, row.Value)
		if names[row.Name] {
			t.Errorf("two rows are named %s", row.Name)
		}
		names[row.Name] = true
		if _, ok := row.Value.(*time.Duration); ok != (row.Unit == Span) {
			t.Errorf("%s has the wrong unit", row.Name)
		}
	}
	for _, field := range fields {
		t.Errorf("%s has no row", field)
	}
	if err := l.Check(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

func TestCheckNamesTheLimit(t *testing.T) {
	for want, set := range map[string]func(*Limits){
		"message: 0: a limit is greater than zero":                     func(l *Limits) { l.MessageBytes = 0 },
		"stall: -1s: a limit is greater than zero":                     func(l *Limits) { l.Stall = -time.Second },
		"in_flight: 70000: at most 65535 is possible":                  func(l *Limits) { l.InFlight = 70000 },
		"keep_alive: 100h0m0s: at most 18h12m15s is possible":          func(l *Limits) { l.KeepAlive = 100 * time.Hour },
		"connection_rate_per_address: 0: a limit is greater than zero": func(l *Limits) { l.ConnRatePerAddress = 0 },
		"in_flight: 2000 is more than in_flight_max, 1024":             func(l *Limits) { l.InFlight = 2000 },
	} {
		l := DefaultLimits()
		set(&l)
		if err := l.Check(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
