package adapters

import (
	"testing"

	"github.com/sluicemq/sluice/core"
)

func TestHeaderForms(t *testing.T) {
	for _, c := range []struct {
		headers []core.Header
		want    string
	}{
		{[]core.Header{{Name: "a", Value: "1"}}, `{"a":"1"}`},
		{[]core.Header{{Name: "b", Value: "1"}, {Name: "a", Value: ""}}, `{"b":"1","a":""}`},
		{[]core.Header{{Name: "a", Value: "1"}, {Name: "a", Value: "1"}}, `[["a","1"],["a","1"]]`},
		{[]core.Header{{Name: "a", Value: "1"}, {Name: "10", Value: "2"}}, `[["a","1"],["10","2"]]`},
		{[]core.Header{{Name: "__proto__", Value: "x"}}, `[["__proto__","x"]]`},
		{[]core.Header{{Name: "", Value: "x"}}, `[["","x"]]`},
	} {
		if got := string(AppendJSONHeaders(nil, c.headers)); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestIsStructured(t *testing.T) {
	for _, text := range []string{`{}`, `[]`, ` {"a":[1,-2.5e+3,null,true,{"b":"\u0000"}]} `, `0`, `null`, "[1 ,\n2]"} {
		if !isStructured([]byte(text)) {
			t.Errorf("%s: not found to be structured", text)
		}
	}
	for _, text := range []string{``, ` `, `"a"`, `{`, `{"a"}`, `{"a":}`, `{,}`, `[1,]`, `{"a":1,}`, `{a:1}`, `nul`, `01`, `1.`, `.5`, `+1`, `-`, `1e`, `[1 2]`, `[1}`, `{"a":1]`, `{} {}`, `["\x"]`} {
		if isStructured([]byte(text)) {
			t.Errorf("%s: found to be structured", text)
		}
	}
}
