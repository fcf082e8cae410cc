package selector

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluicemq/sluice/core/coretest/sameseed"
)

var order42 = &envelope{
	Topic:         "plant/3/temp",
	Key:           "line-7",
	ID:            "m-1",
	ContentType:   "application/json",
	ReplyTo:       "$inbox/x",
	CorrelationID: []byte("c\x00\xff"),
	Priority:      8,
	Durable:       true,
	Time:          time.UnixMilli(1_700_000_000_123),
	Headers: []pair{
		{Name: "color", Value: "red"}, {Name: "color", Value: "blue"},
		{Name: "n", Value: "5"}, {Name: "minus", Value: "-2.50"}, {Name: "big", Value: "9223372036854775807"},
		{Name: "yes", Value: "True"}, {Name: "no", Value: "false"}, {Name: "empty", Value: ""},
		{Name: "x-kind", Value: "it's"}, {Name: `q"q`, Value: "quoted"}, {Name: "type", Value: "order"},
		{Name: "priority", Value: "mine"}, {Name: "größe", Value: "10"}, {Name: "AND", Value: "word"},
		{Name: "Ünï", Value: "añb"}, {Name: "rate", Value: "50%_"}, {Name: "huge", Value: "1e999"},
		{Name: "JMSXGroupSeq", Value: "4"},
	},
}

// truthOf is what a selector comes to, unknown included.
func truthOf(s *Selector, e *envelope, at uint64) string {
	switch v := s.root.eval(e, at); {
	case v.isTrue():
		return "T"
	case v.isFalse():
		return "F"
	case v.kind == kindNull:
		return "U"
	}
	return "no condition"
}

func TestSelectors(t *testing.T) {
	for _, c := range []struct{ selector, want string }{
		// Names.
		{`color = 'red'`, "T"}, {`color = 'blue'`, "F"}, {`Color = 'red'`, "U"},
		{`"x-kind" = 'it''s'`, "T"}, {`"q""q" = 'quoted'`, "T"}, {`"AND" = 'word'`, "T"}, {`größe = 10`, "T"},
		{`topic = 'plant/3/temp' AND key = 'line-7' AND id = 'm-1' AND content_type = 'application/json'`, "T"},
		{`JMSXGroupID = key AND JMSMessageID = id AND JMSPriority = priority AND JMSTimestamp = time`, "T"},
		{"JMSReplyTo = '$inbox/x'", "T"}, {"JMSCorrelationID LIKE 'c__'", "T"}, {"JMSType = 'order'", "T"}, {"type = 'order'", "T"},
		{"JMSDeliveryMode = 'PERSISTENT'", "T"}, {"JMSDeliveryMode LIKE 'NON%'", "F"}, {"JMSXGroupSeq = 4", "T"},
		{"priority = 7", "T"}, {`"priority" = 'mine'`, "T"}, {`"topic" IS NULL`, "T"},
		{"time = 1700000000123", "T"}, {"offset BETWEEN 42 AND 42", "T"},
		// Types.
		{"n = 5", "T"}, {"n = '5'", "T"}, {"n = '5.0'", "F"}, {"n = 5.0", "T"}, {"minus = -2.5", "T"}, {"minus < n", "T"},
		{"color = 5", "F"}, {"color <> 5", "F"}, {"color > 5", "F"}, {"NOT color > 5", "T"}, {"huge > 5", "F"}, {"empty = 0", "F"},
		{"priority = '7'", "F"}, {"priority <> '7'", "F"}, {"'3' = 3", "F"},
		{"yes", "T"}, {"no", "F"}, {"color", "F"}, {"absent", "U"}, {"NOT no", "T"}, {"yes = TRUE", "T"}, {"TRUE <> no", "T"},
		{"color = TRUE", "F"}, {"color <> TRUE", "F"}, {"n = TRUE", "F"}, {"(n > 4) = yes", "T"}, {"(absent > 4) = TRUE", "U"},
		{"empty = ''", "T"}, {"empty IS NULL", "F"}, {"empty IS NOT NULL", "T"},
		// Arithmetic.
		{"n + 2 * 3 = 11", "T"}, {"(n + 2) * 3 = 21", "T"}, {"10 - 4 - 3 = 3", "T"}, {"12 / 2 / 3 = 2", "T"}, {"12 / (2 * 3) = 2", "T"},
		{"7 / 2 = 3", "T"}, {"-7 / 2 = -3", "T"}, {"7 / 2.0 = 3.5", "T"}, {"-n = -5", "T"}, {"- -n = 5", "T"}, {"+minus = -2.5", "T"}, {"-(-5) = n", "T"},
		{"n / 0 = 1", "U"}, {"n / 0.0 = 1", "U"}, {"1e308 * 10 > 0", "U"}, {"color + 1 = 1", "U"}, {"absent + 1 = 1", "U"},
		{"big + 1 > big", "F"}, {"big + 1 = 9223372036854775808.0", "T"}, {"big * 2 > 2e19", "F"}, {"big * 3 > 2e19", "T"},
		{"-9223372036854775808 < -big", "T"}, {"-9223372036854775808 / -1 > 0", "T"}, {"-9223372036854775808 * -1 > 0", "T"},
		// Literals.
		{"0x1F = 31 AND 017 = 15 AND 0b11 = 3 AND 5L = n AND 0 = 00", "T"},
		{"7. = 7 AND .5 = 0.5 AND 1E3 = 1000 AND 1e-1 = .1 AND 2.5f = 2.5 AND 7d = 7", "T"},
		// Predicates.
		{"n BETWEEN 5 AND 6", "T"}, {"n NOT BETWEEN 5 AND 6", "F"}, {"n BETWEEN 6 AND 4", "F"}, {"n BETWEEN absent AND 4", "F"}, {"n BETWEEN absent AND 6", "U"},
		{"n NOT BETWEEN absent AND 4", "T"}, {"NOT n NOT BETWEEN 1 AND 2 + 3 AND yes", "T"}, {"absent BETWEEN 1 AND 2", "U"}, {"color BETWEEN 1 AND 2", "F"},
		{"color IN ('green', 'red')", "T"}, {"color NOT IN ('green', 'red')", "F"}, {"absent IN ('a')", "U"}, {"absent NOT IN ('a')", "U"},
		{"priority IN (1, -2, 7.0)", "T"}, {"priority NOT IN ('7')", "T"}, {"n IN ('5')", "T"}, {"(color) IN ('red')", "T"},
		{"absent IS NULL", "T"}, {"absent IS NOT NULL", "F"}, {"NOT absent IS NULL", "F"},
		// Precedence, case and blanks.
		{"yes OR no AND no", "T"}, {"(yes OR no) AND no", "F"}, {"NOT no AND no", "F"}, {"NOT (no AND no)", "T"}, {"NOT n = 4", "T"},
		{"\t yes\r\n Or\fno ", "T"}, {"color iN('red')and nOt absent Is not nulL", "T"}, {"n=5AND yes", "error"}, {"n>=5 AND n<=5 AND n<>4 AND n<6 AND n>4", "T"},
	} {
		s, err := Parse(c.selector)
		got := "error"
		if err == nil {
			got = truthOf(s, order42, 42)
			if s.Match(order42, 42) != (got == "T") {
				t.Errorf("%s: Match does not say %s", c.selector, got)
			}
			checkString(t, s)
		}
		if got != c.want {
			t.Errorf("%s is %s, want %s (%v)", c.selector, got, c.want, err)
		}
	}
}

func TestLike(t *testing.T) {
	for _, c := range []struct {
		text, pattern string
		want          bool
	}{
		{"12993", "12%3", true}, {"123", "12%3", true}, {"1234", "12%3", false},
		{"lose", "l_se", true}, {"loose", "l_se", false}, {"LOSE", "l_se", false},
		{"_foo", `\_%`, true}, {"bar", `\_%`, false}, {"50%", `50\%`, true}, {"500", `50\%`, false}, {`a\b`, `a\\b`, true},
		{"", "", true}, {"a", "", false}, {"", "%", true}, {"", "_", false}, {"abc", "%%", true},
		{"a", "a%a", false}, {"aa", "a%a", true}, {"aXbXc", "a%b%c", true}, {"acb", "a%b%c", false}, {"abcabd", "%ab_", true}, {"abcab", "%ab_", false},
		{"xabazcb", "%a_b%", false}, {"xabazb", "%a_b%", true}, {"xayb", "%a_b%", true}, {"aab", "%_ab%", true}, {"ab", "%_ab%", false},
		{"ñ", "_", true}, {"ñ", "__", false}, {"añb", "a_b", true}, {"añ", "%_ñ", true}, {"\xff\xfe", "__", true}, {"a.b*", "a.b*", true}, {"line\nbreak", "line_break", true},
	} {
		e := &envelope{Headers: []pair{{Name: "h", Value: c.text}}}
		quoted := "'" + c.pattern + `' ESCAPE '\'`
		for text, want := range map[string]bool{"h LIKE " + quoted: c.want, "h NOT LIKE " + quoted: !c.want} {
			s, err := Parse(text)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Match(e, 1); got != want {
				t.Errorf("%s of %q: %v", text, c.text, got)
			}
			checkString(t, s)
		}
	}
}

// TestThreeValues holds the tables of JMS 2.0, 3.8.1.2.
func TestThreeValues(t *testing.T) {
	names := map[string]string{"T": "yes", "F": "no", "U": "absent"}
	check := func(want, format string, operands ...any) {
		text := fmt.Sprintf(format, operands...)
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := truthOf(s, order42, 1); got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
	for _, c := range []struct{ a, b, and, or string }{
		{"T", "T", "T", "T"}, {"T", "F", "F", "T"}, {"T", "U", "U", "T"},
		{"F", "T", "F", "T"}, {"F", "F", "F", "F"}, {"F", "U", "F", "U"},
		{"U", "T", "U", "T"}, {"U", "F", "F", "U"}, {"U", "U", "U", "U"},
	} {
		check(c.and, "%s AND %s", names[c.a], names[c.b])
		check(c.or, "%s OR %s", names[c.a], names[c.b])
	}
	check("F", "NOT yes")
	check("T", "NOT no")
	check("U", "NOT absent")
	for _, predicate := range []string{"absent = 'a'", "'a' <> absent", "absent < 1", "1 >= absent", "absent = absent", "absent = TRUE", "absent LIKE '%'", "absent NOT LIKE '%'", "absent + 1 = 2", "-absent = 1"} {
		check("U", "%s", predicate)
		check("U", "NOT (%s)", predicate)
	}
}

func TestWhatIsUnsetIsNull(t *testing.T) {
	for _, name := range []string{"topic", "key", "id", "content_type", "JMSReplyTo", "JMSCorrelationID", "priority", "time", "offset", "JMSType", "JMSXGroupID", "JMS_any"} {
		s, err := Parse(name + " IS NULL")
		if err != nil || !s.Match(&envelope{}, 0) {
			t.Errorf("%s is not NULL (%v)", name, err)
		}
	}
	s, err := Parse("JMSDeliveryMode = 'NON_PERSISTENT'")
	if err != nil || !s.Match(&envelope{}, 0) {
		t.Errorf("delivery mode: %v", err)
	}
}

func TestBlankSelectsEverything(t *testing.T) {
	for _, text := range []string{"", " \t\r\n"} {
		s, err := Parse(text)
		if err != nil || !s.Match(order42, 1) || s.String() != "" {
			t.Errorf("%q: %v, %v", text, s, err)
		}
	}
	if none := (*Selector)(nil); !none.Match(order42, 1) || none.String() != "" {
		t.Error("no selector does not select everything")
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ selector, want string }{
		{"color", ""}, // the table itself can tell
		{"color =", "expected a name or a value at byte 7, found the end"},
		{"color = 'red' weight", `expected an operator or the end at byte 14, found "weight"`},
		{"= 3", `expected a name or a value at byte 0, found "="`},
		{"a = b = c", `expected an operator or the end at byte 6, found "="`},
		{"(a = 1", "expected an operator or ) at byte 6, found the end"},
		{"a = 1)", `expected an operator or the end at byte 5, found ")"`},
		{"a = 'red", "expected a string's closing ' at byte 8, found the end"},
		{`"a = 1`, `expected a name's closing " at byte 6, found the end`},
		{`"" = 1`, "expected a header's name at byte 1"},
		{"a LIKE b", `expected a pattern, which is a string, at byte 7, found "b"`},
		{"a LIKE 'x' ESCAPE 'yy'", "expected an escape of one character at byte 18, found 2"},
		{"a LIKE 'x' ESCAPE ''", "expected an escape of one character at byte 18, found 0"},
		{`a LIKE 'x\y' ESCAPE '\'`, "expected a pattern with %, _ or the escape itself behind each escape at byte 7"},
		{`a LIKE 'x\' ESCAPE '\'`, "behind each escape at byte 7"},
		{"priority LIKE '7'", "expected a name of text before LIKE at byte 0, found one of a number"},
		{"'a' IN ('a')", "expected a name before IS, IN or LIKE at byte 0"},
		{"1 + (2 IS NULL)", "expected a name before IS, IN or LIKE at byte 5"},
		{"a IN ()", "expected a name or a value at byte 6"},
		{"a IN ('x'", "expected , or ) at byte 9, found the end"},
		{"a IN (b)", "expected a string or a number in IN at byte 6"},
		{"a IS 3", `expected NULL at byte 5, found "3"`},
		{"a NOT = 3", `expected BETWEEN, IN or LIKE at byte 6, found "="`},
		{"a BETWEEN 1 OR 2", `expected AND at byte 12, found "OR"`},
		{"a < 'b'", "expected a number at byte 4, found a string"},
		{"a BETWEEN 'b' AND 3", "expected a number at byte 10, found a string"},
		{"a + 'b' = 3", "expected a number at byte 4, found a string"},
		{"a * (b = 3) = 3", "expected a number at byte 4, found a condition"},
		{"-TRUE = 3", "expected a number at byte 1, found a condition"},
		{"priority", "expected a condition at byte 0, found a number"},
		{"a AND 'x'", "expected a condition at byte 6, found a string"},
		{"NOT 3", "expected a condition at byte 4, found a number"},
		{"a = NULL", `expected a name or a value at byte 4, found "NULL"`},
		{"a != 3", `expected a name, a value or an operator at byte 2, found "!"`},
		{"a = 3 -- b", `expected a word, as there are no comments here, at byte 6, found "--"`},
		{"a = /* b */ 3", "no comments here, at byte 4"},
		{"a = 9223372036854775808", "expected a whole number of 64 bits, decimal, 0x…, 0b… or octal 0… at byte 4"},
		{"a = 09", "octal 0… at byte 4"}, {"a = 0xg", "at byte 4"}, {"a = 0x", "at byte 4"}, {"a = 1_000", "expected an operator after a number at byte 5"},
		{"a = 1e999", "expected a number in the range of a double at byte 4"},
		{"a = 1e", "expected an exponent's digits at byte 6, found the end"},
		{"a = 3b", `expected an operator after a number at byte 5, found "b"`},
		{"JMSDestination = 'x'", "or a name that does not begin with JMS, at byte 0"},
		{"a = '\uFFFD\xff'", `expected UTF-8 at byte 8, found "\xff"`},
		{strings.Repeat("(", MaxDepth+1) + "a", "expected no more than 64 levels of nesting at byte 64"},
		{strings.Repeat("NOT ", MaxDepth+1) + "a", "levels of nesting at byte 256"},
		{strings.Repeat("- ", MaxDepth+1) + "a = 1", "levels of nesting at byte 128"},
		{strings.Repeat("a", MaxBytes+1), "at most 8192 bytes at byte 8192"},
	} {
		s, err := Parse(c.selector)
		if c.want == "" {
			if err != nil {
				t.Error(err)
			}
			continue
		}
		var syntax *SyntaxError
		if s != nil || !errors.As(err, &syntax) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.40s: %v, want …%s…", c.selector, err, c.want)
		}
	}
}

func TestBounds(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("(", MaxDepth) + "a" + strings.Repeat(")", MaxDepth),
		strings.Repeat("NOT ", MaxDepth) + "a",
		"a" + strings.Repeat(" ", MaxBytes-1),
		"1" + strings.Repeat("+1", MaxBytes/2-2) + "=a",
		"a" + strings.Repeat(" OR a", (MaxBytes-1)/5),
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%.20s…: %v", text, err)
			continue
		}
		s.Match(order42, 1)
		checkString(t, s)
	}
}

func TestString(t *testing.T) {
	for text, want := range map[string]string{
		`a=1 and(b<>'x''y'or not c)`:      `a = 1 AND (b <> 'x''y' OR NOT c)`,
		`(a)+(b*c)-(d-e)=-(5)`:            `a + b * c - (d - e) = -5`,
		`(a+b)*-c = - -d`:                 `(a + b) * -c = - -d`,
		`JMSPriority in(1,-2,0x10,1e30)`:  `priority IN (1, -2, 16, 1e+30)`,
		`"a" = "a-b" or "topic" = "and"`:  `a = "a-b" OR "topic" = "and"`,
		`JMSType NOT LIKE 'a' ESCAPE '!'`: `type NOT LIKE 'a' ESCAPE '!'`,
		`NOT(a BETWEEN 1 AND 2.)`:         `NOT a BETWEEN 1 AND 2.0`,
		`(a is not null) = FALSE`:         `(a IS NOT NULL) = FALSE`,
		`"JMSFoo" = 1 AND JMSXFoo = 1`:    `"JMSFoo" = 1 AND JMSXFoo = 1`,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := s.String(); got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// checkString checks that a selector's String is the same selector.
func checkString(t interface {
	Helper()
	Fatalf(string, ...any)
}, s *Selector) {
	t.Helper()
	again, err := parse(s.String())
	if err != nil {
		t.Fatalf("%s: %v", s, err)
	}
	if !reflect.DeepEqual(s, again) || again.String() != s.String() {
		t.Fatalf("%s was read again as %s", s, again)
	}
}

func TestMatchDoesNotAllocate(t *testing.T) {
	for _, text := range []string{
		`color = 'red' AND (n + 2 * 3 > 10.5 OR priority BETWEEN 7 AND 9) AND NOT absent`,
		`topic LIKE 'plant/%/t_mp' AND JMSCorrelationID LIKE 'c%' AND key IN ('line-6', 'line-7')`,
		`color > 3 OR huge > 3 OR empty = 1 OR -minus * 2 = 5 AND time / 1000 > offset AND yes`,
	} {
		s, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if n := testing.AllocsPerRun(100, func() { s.Match(order42, 42) }); n != 0 {
			t.Errorf("%s: %v allocations", text, n)
		}
	}
}

func FuzzParse(plain *testing.F) {
	f := sameseed.Fuzz(plain)
	for _, text := range []string{
		`color = 'red' AND "x-kind" <> 3.5e-3 OR NOT (n BETWEEN -1 AND +2)`, `a LIKE 'x\%_' ESCAPE '\'`, `a IN ('b', 0x1F, -7.)`,
		`- -(-9223372036854775808) / 0 = "a""b"`, `größe IS NOT NULL`, `((a)) = (TRUE)`, "a -- b", "'", "\xff", "9d",
	} {
		f.Add(text, "red")
	}
	f.Fuzz(func(t *testing.T, text, header string) {
		s, err := Parse(text)
		if err != nil {
			var syntax *SyntaxError
			if s != nil || !errors.As(err, &syntax) {
				t.Fatalf("%v, %v", s, err)
			}
			return
		}
		e := &envelope{Topic: header, CorrelationID: []byte(header), Headers: []pair{{Name: "a", Value: header}}}
		got := s.Match(e, 1)
		checkString(t, s)
		if again, _ := parse(s.String()); again.Match(e, 1) != got {
			t.Fatalf("%s matches another way", s)
		}
	})
}

func BenchmarkMatch(b *testing.B) {
	s, err := Parse(`color = 'red' AND (n > 10.5 OR priority BETWEEN 7 AND 9) AND topic LIKE 'plant/%/temp'`)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Match(order42, 42)
	}
}
