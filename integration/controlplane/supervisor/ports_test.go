package supervisor

import (
	"context"
	"net"
	"sync"
	"testing"
)

// TestTakenPort asks for ports that stay in other hands, and for some that do not.
func TestTakenPort(t *testing.T) {
	l := newTestLayout(t)
	_, held, err := reservePorts(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := reservePorts(ended, l); err == nil {
		t.Error("the same ports are held twice")
	}

	var releasing sync.WaitGroup
	defer releasing.Wait()
	releasing.Go(held.release)
	_, again, err := reservePorts(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	again.release()
}

// TestReservation holds the ports of a cluster against everyone but listeners
// that share them, and gives the same again.
func TestReservation(t *testing.T) {
	l := newTestLayout(t)
	first, held, err := reservePorts(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	for name, port := range first.all() {
		if listener, err := net.Listen("tcp", loopback(port)); err == nil {
			listener.Close()
			t.Errorf("another program gets port %d of %s", port, name)
		}
		if err := new(reservation).add(port); err == nil {
			t.Errorf("another cluster gets port %d of %s", port, name)
		}
	}
	held.release()

	second, held, err := reservePorts(t.Context(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer held.release()
	if second != first {
		t.Errorf("ports %v, want those of the first time, %v", second, first)
	}
}

func newTestLayout(t *testing.T) layout {
	t.Helper()
	l, err := newLayout(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return l
}
