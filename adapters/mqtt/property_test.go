package mqtt

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/sluicemq/sluice/adapters"
)

// table24 is the specification's table of properties (section 2.2.2.2, 2-4): an
// identifier, a value of its type, and the packets it may stand in. Where the
// table names a packet that only a server sends, it is left out.
const table24 = `
01 00 PUBLISH Will
02 00000001 PUBLISH Will
03 000141 PUBLISH Will
08 000141 PUBLISH Will
09 000141 PUBLISH Will
0B 01 SUBSCRIBE
11 00000001 CONNECT DISCONNECT
12 000141
13 0001
15 000141 CONNECT AUTH
16 000141 CONNECT AUTH
17 01 CONNECT
18 00000001 Will
19 01 CONNECT
1A 000141
1C 000141
1F 000141 PUBACK PUBREC PUBREL PUBCOMP DISCONNECT AUTH
21 0001 CONNECT
22 0001 CONNECT
23 0001 PUBLISH
24 01
25 01
26 000141000142 CONNECT PUBLISH Will PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE UNSUBSCRIBE DISCONNECT AUTH
27 00000001 CONNECT
28 01
29 01
2A 01
`

// TestPropertyTable: each property is taken where it belongs, once, and the
// user's as often as it comes; a second one is a protocol error, and one that is
// cut short, belongs elsewhere or is unknown makes the packet malformed.
func TestPropertyTable(t *testing.T) {
	t.Parallel()
	kinds := map[string]byte{
		"CONNECT": typeConnect, "PUBLISH": typePublish, "Will": kindWill, "PUBACK": typePuback, "PUBREC": typePubrec, "PUBREL": typePubrel,
		"PUBCOMP": typePubcomp, "SUBSCRIBE": typeSubscribe, "UNSUBSCRIBE": typeUnsubscribe, "DISCONNECT": typeDisconnect, "AUTH": typeAuth,
	}
	type row struct {
		value   []byte
		packets []string
	}
	rows := make(map[byte]row)
	for line := range strings.Lines(strings.TrimSpace(table24)) {
		words := strings.Fields(line)
		b := bytesOf(t, words[0]+words[1])
		rows[b[0]] = row{b[1:], words[2:]}
	}
	limits := adapters.DefaultLimits()
	read := func(kind byte, properties ...byte) string {
		s := scanner{rest: append(appendVarint(nil, len(properties)), properties...)}
		if err := skipProperties(&s, kind, &limits); err != nil {
			return fmt.Sprintf("%02X", err.code)
		}
		return "taken"
	}
	for name, kind := range kinds {
		for id := range 256 {
			r, exists := rows[byte(id)]
			whole := append([]byte{byte(id)}, r.value...)
			once, twice, cut := "81", "81", "81"
			// A client's PUBLISH has no subscription identifier, which the table
			// names for the server's: [publishPacket.properties] refuses it.
			if slices.Contains(r.packets, name) || id == propSubscriptionID && kind == typePublish {
				if once, twice = "taken", "82"; id == propUser {
					twice = "taken"
				}
			}
			if !exists {
				whole = append(whole, 1)
			}
			got := []string{read(kind, whole...), read(kind, bytes.Repeat(whole, 2)...), read(kind, whole[:len(whole)-1]...)}
			if want := []string{once, twice, cut}; !slices.Equal(got, want) {
				t.Errorf("%s with property %02X: once, twice and cut short it is %v, want %v", name, id, got, want)
			}
		}
	}
}

// TestPropertyValues: what the specification forbids of a property's value is a
// protocol error; every other value is taken.
func TestPropertyValues(t *testing.T) {
	t.Parallel()
	limits := adapters.DefaultLimits()
	for _, c := range []struct {
		kind       byte
		text, want string
	}{
		{typePublish, "01 00", ""}, {typePublish, "01 01", ""}, {typePublish, "01 02", "82"}, {typePublish, "01 FF", "82"},
		{typeConnect, "17 00", ""}, {typeConnect, "17 01", ""}, {typeConnect, "17 02", "82"},
		{typeConnect, "19 00", ""}, {typeConnect, "19 01", ""}, {typeConnect, "19 02", "82"},
		{typeConnect, "21 0000", "82"}, {typeConnect, "21 0001", ""}, {typeConnect, "21 FFFF", ""},
		{typeConnect, "22 0000", ""}, {typeConnect, "22 FFFF", ""},
		{typeConnect, "27 00000000", "82"}, {typeConnect, "27 00000001", ""}, {typeConnect, "27 FFFFFFFF", ""},
		{typeConnect, "11 00000000", ""}, {typeConnect, "11 FFFFFFFF", ""},
		{kindWill, "18 00000000", ""}, {kindWill, "18 FFFFFFFF", ""}, {kindWill, "01 02", "82"},
		{typeSubscribe, "0B 00", "82"}, {typeSubscribe, "0B 01", ""}, {typeSubscribe, "0B FFFFFF7F", ""},
		{typeSubscribe, "0B FFFFFFFF01", "81"}, {typeSubscribe, "0B 8100", "81"}, {typeSubscribe, "0B 8000", "81"},
		{typePublish, `03 s""`, ""}, {typePublish, `03 0001FF`, "81"}, {typePublish, `03 000100`, "81"}, {typePublish, `03 0003EDA080`, "81"},
		{typePublish, `03 0003EFBBBF`, ""}, {typePublish, `09 0002FF00`, ""},
		{typeConnect, `26 s"" s""`, ""}, {typeConnect, `26 s"a" 0001FF`, "81"}, {typeConnect, `26 000100 s"a"`, "81"},
	} {
		b := bytesOf(t, c.text)
		got := ""
		s := scanner{rest: append(appendVarint(nil, len(b)), b...)}
		if err := skipProperties(&s, c.kind, &limits); err != nil {
			got = fmt.Sprintf("%02X", err.code)
		}
		if got != c.want {
			t.Errorf("%s in packet %d: %q, want %q", c.text, c.kind, got, c.want)
		}
	}
	// The length of all of them is in its shortest form, too.
	s := scanner{rest: []byte{0x82, 0, propPayloadFormat, 1}}
	if err := skipProperties(&s, typePublish, &limits); err == nil || err.code != codeMalformed {
		t.Errorf("a property length of two bytes where one would do: %v", err)
	}
}
