package enforce

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// TestBursts: whatever has come is carried before more is waited for, whole and in
// order, at each size at which buffers change.
func TestBursts(t *testing.T) {
	defer func(d time.Duration) { spliceWait = d }(spliceWait)
	spliceWait = time.Millisecond // so that it often ends
	sizes := []int{1}
	for _, edge := range []int{wordSize, 16 << 10, bufferSize, bufferSize + wordSize, spliceSize} {
		sizes = append(sizes, edge-1, edge, edge+1)
	}
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := r.dial(r.chain(r.app(echo), server))
			for round := range 3 {
				for _, size := range sizes {
					said := bytes.Repeat([]byte{byte(round), byte(size), byte(size >> 8), 7}, size/4+1)[:size]
					go func() { _, _ = c.Write(said) }() // no byte of the next is sent before all has come back
					heard := make([]byte, size)
					if n, err := io.ReadFull(c, heard); err != nil || !bytes.Equal(heard, said) {
						t.Fatalf("%d of %d bytes came back, or they differ: %v", n, size, err)
					}
				}
			}
		})
	}
}

// TestHalfARecord: a record of TLS of which the end is missing keeps nothing back
// that came before it.
func TestHalfARecord(t *testing.T) {
	r := newRig(t)
	at := r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode("STRICT"))
	held := &holding{Conn: r.dial(at)}
	c := tls.Client(held, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio"}, DynamicRecordSizingDisabled: true})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	said := bytes.Repeat([]byte("0123456789abcdef"), 3*wordSize/16)
	held.holds = true
	for _, part := range [][]byte{said, said} { // a record each
		if _, err := c.Write(part); err != nil {
			t.Fatal(err)
		}
	}
	first := len(held.kept) * 3 / 4
	if _, err := held.Conn.Write(held.kept[:first]); err != nil {
		t.Fatal(err)
	}
	heard := make([]byte, len(said))
	if _, err := io.ReadFull(c, heard); err != nil || !bytes.Equal(heard, said) {
		t.Fatalf("the first record, while half of the second is missing: %v", err)
	}
	if _, err := held.Conn.Write(held.kept[first:]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, heard); err != nil || !bytes.Equal(heard, said) {
		t.Fatalf("the second record: %v", err)
	}
}

// TestIdle: for a connection on which nothing happens nothing is done.
func TestIdle(t *testing.T) {
	r := newRig(t)
	client, a := r.ends()
	b, app := r.ends()
	var tries atomic.Int64
	counted := func(c *net.TCPConn) side {
		s := &socket{TCPConn: c}
		return side{reads{s, func() { tries.Add(1) }}, s}
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _, _ = relay(t.Context(), counted(a), counted(b))
	}()
	for range 3 { // a word each way, of which each is waited for
		for _, c := range []struct{ from, to *net.TCPConn }{{client, app}, {app, client}} {
			_, _ = io.WriteString(c.from, "word")
			if _, err := io.ReadFull(c.to, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
		}
	}
	<-time.After(20 * time.Millisecond)
	if n := tries.Load(); n < 8 || n > 20 {
		t.Errorf("six words took %d reads", n)
	}
	client.Close()
	app.Close()
	<-over
}

// holding keeps what is written, if it holds.
type holding struct {
	net.Conn
	holds bool
	kept  []byte
}

func (h *holding) Write(b []byte) (int, error) {
	if !h.holds {
		return h.Conn.Write(b)
	}
	h.kept = append(h.kept, b...)
	return len(b), nil
}
