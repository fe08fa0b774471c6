package daemon

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestLimitConnections: what is more than the limit is closed at once, and what
// is closed, however often, makes room for one.
func TestLimitConnections(t *testing.T) {
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var refused atomic.Int64
	listener := LimitConnections(raw, 2, func() { refused.Add(1) })
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			accepted <- conn
		}
	}()
	defer func() { listener.Close(); <-accepted }()
	dial := func() net.Conn {
		t.Helper()
		conn, err := net.Dial("tcp", raw.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	dial()
	first := <-accepted
	dial()
	second := <-accepted
	defer second.Close()
	for range 3 {
		conn := dial()
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("one too many is left open: %v", err)
		}
	}
	if refused.Load() != 3 {
		t.Errorf("%d refused", refused.Load())
	}
	first.Close()
	first.Close() // this makes no further room
	dial()
	third := <-accepted
	defer third.Close()
	conn := dial()
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("closing twice made room for two: %v", err)
	}
}

// TestMonitoringPortTakesNotAllFiles: who opens connections to it and says
// nothing is cut off at a number of them.
func TestMonitoringPortTakesNotAllFiles(t *testing.T) {
	const most = 5
	url, _ := serving(t, Monitor{Host: "127.0.0.1", Connections: most})
	var held []net.Conn
	for range 2 * most {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held = append(held, conn)
	}
	last := held[len(held)-1]
	_ = last.SetReadDeadline(time.Now().Add(5 * time.Second)) // half of what a silent one has
	if _, err := last.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many is left open: %v", err)
	}
}
