package stomp

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/sluicemq/sluice/core"
)

// TestReceiptsLeaveInOrder: whatever becomes done first.
func TestReceiptsLeaveInOrder(t *testing.T) {
	r := newReceipts(100)
	var numbers []core.Receipt
	for i := range 20 {
		n, ok := r.add(fmt.Sprint("r", i))
		if !ok {
			t.Fatal("refused")
		}
		numbers = append(numbers, n)
	}
	var out []byte
	for _, i := range []int{3, 1, 2} {
		if out = r.finish(out, numbers[i], v12); len(out) != 0 {
			t.Fatalf("%q", out)
		}
	}
	out = r.finish(out, numbers[0], v12)
	if got := strings.Count(string(out), "RECEIPT"); got != 4 {
		t.Errorf("%d receipts", got)
	}
	for i := 19; i >= 4; i-- {
		out = r.finish(out, numbers[i], v12)
	}
	want := ""
	for i := range 20 {
		want += fmt.Sprintf("RECEIPT\nreceipt-id:r%d\n\n\x00\n", i)
	}
	if string(out) != want {
		t.Errorf("%q", out)
	}
}

// TestReceiptsBound: the reader waits where too many are outstanding.
func TestReceiptsBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReceipts(2)
		first, _ := r.add("a")
		second, _ := r.add("b")
		added := false
		go func() { _, added = r.add("c") }()
		synctest.Wait()
		if added {
			t.Fatal("a third one of two")
		}
		r.finish(nil, second, v12)
		synctest.Wait()
		if added {
			t.Fatal("a third one while the first is outstanding")
		}
		r.finish(nil, first, v12)
		synctest.Wait()
		if !added {
			t.Fatal("still waits")
		}
		go func() { _, added = r.add("d"); _, added = r.add("e") }()
		synctest.Wait()
		r.end()
		synctest.Wait()
		if added {
			t.Error("added after the end")
		}
	})
}

func TestReceiptsDoNotAllocate(t *testing.T) {
	r := newReceipts(100)
	buf := make([]byte, 0, 256)
	if n := testing.AllocsPerRun(1000, func() {
		a, _ := r.add("receipt-1")
		b, _ := r.add("receipt-2")
		buf = r.finish(buf[:0], a, v12)
		buf = r.finish(buf, b, v12)
	}); n != 0 {
		t.Errorf("%v allocations for two receipts", n)
	}
}
