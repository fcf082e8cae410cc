//go:build pauses

package pause

import (
	"hash/maphash"
	"os"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

var (
	// first is what the first pause is drawn from; PAUSES sets it.
	first, _ = strconv.ParseUint(os.Getenv("PAUSES"), 10, 64)
	drawn    atomic.Uint64
	names    = maphash.MakeSeed()
)

// At may hold the caller up, for some turns of the others or for some time. The
// point says where it is: one in four runs of the process never pauses there, so
// that not all windows are widened alike. No lock is held.
func At(point string) {
	n := mix(first + drawn.Add(1)*0x9e3779b97f4a7c15)
	if maphash.String(names, point)%4 == 0 || n%8 != 0 {
		return
	}
	n >>= 8
	// Within a bubble of testing/synctest time stands still, and is that of the
	// year 2000.
	if n%4 != 0 || time.Now().Year() < 2020 {
		for range n >> 8 % 256 {
			runtime.Gosched()
		}
		return
	}
	time.Sleep(time.Duration(n>>8%2000) * time.Microsecond)
}

// mix is a step of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
