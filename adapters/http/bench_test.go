package http_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// benchConns is how many connections publish at once.
const benchConns = 64

// BenchmarkPublish publishes 100 bytes a request, keep-alive, each answered
// after it is durable. The clients write ready requests and read answers
// without understanding them, so that nearly all the time is the server's.
func BenchmarkPublish(b *testing.B) {
	d := open(b)
	body := strings.Repeat("x", 100)
	request := []byte(fmt.Sprintf("POST /t/bench/publish HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: bench\r\nContent-Length: %d\r\nContent-Type: application/octet-stream\r\n\r\n%s", len(body), body))
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range benchConns {
		c, err := net.Dial("tcp", d.addr)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() {
			defer c.Close()
			r := bufio.NewReader(c)
			for left.Add(-1) >= 0 {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				for end := false; !end; { // the answer's last byte is the line break behind its JSON
					line, err := r.ReadSlice('\n')
					if err != nil {
						b.Error(err)
						return
					}
					end = line[0] == '{'
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "req/s")
}

// BenchmarkBatch publishes lines of NDJSON.
func BenchmarkBatch(b *testing.B) {
	d := open(b)
	line := `{"d":"` + strings.Repeat("x", 100) + `"}` + "\n"
	b.ReportAllocs()
	b.ResetTimer()
	pr, pw := io.Pipe()
	go func() {
		many := strings.Repeat(line, 100)
		for n := b.N; n > 0; n -= 100 {
			io.WriteString(pw, many[:min(n, 100)*len(line)])
		}
		pw.Close()
	}()
	resp, err := d.client.Post("http://"+d.addr+"/t/bench/batch", "application/x-ndjson", pr)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
