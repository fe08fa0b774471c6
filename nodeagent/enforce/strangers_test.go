package enforce

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestStrangers: clients without a certificate leave places to those that have one.
func TestStrangers(t *testing.T) {
	for _, m := range []string{"PERMISSIVE", "DISABLE"} {
		t.Run(m, func(t *testing.T) {
			r := newRig(t)
			r.limits.Connections = 80
			e := r.enforcer("httpbin")
			at := r.in(e, r.app(echo), Port{}, mode(m))
			said := func(c net.Conn) error {
				if _, err := io.WriteString(c, "x"); err != nil {
					return err
				}
				_, err := io.ReadFull(c, make([]byte, 1))
				return err
			}
			for range 60 {
				if err := said(r.dial(at)); err != nil {
					t.Fatal(err)
				}
			}
			if heard := r.ask(at, "hello"); heard != "reset" {
				t.Errorf("one more than three quarters: %q", heard)
			}
			if v := r.event(); v.Reason != TooMany {
				t.Errorf("%+v", v)
			}
			if m == "DISABLE" {
				return
			}
			for i := range 64 { // who say nothing, from eight addresses
				from := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i/8))}}
				if c, err := from.Dial("tcp", at.String()); err == nil {
					defer c.Close()
				}
			}
			for range 64 - fewest { // those that made room
				if v := r.event(); v.Reason != TooMany {
					t.Errorf("%+v", v)
				}
			}
			waitFor(t, func() bool { return e.Open() <= 60+fewest })
			mine := tls.Client(r.dial(at), &tls.Config{Certificates: []tls.Certificate{r.pair(r.root)}, InsecureSkipVerify: true, NextProtos: []string{"istio"}})
			if err := said(mine); err != nil {
				t.Errorf("with a certificate: %v", err)
			}
		})
	}
}

// TestLongHandshake: who has not shown who it is may not say without end; what is
// none of the mesh's passes on as it came, and what is no TLS at once.
func TestLongHandshake(t *testing.T) {
	hello := append([]byte{22, 3, 1, 0x40, 0, 1, 0, 0xff, 0xff, 3, 3}, make([]byte, 16<<10-6)...)
	for range 3 {
		hello = append(append(hello, 22, 3, 1, 0x40, 0), make([]byte, 16<<10)...)
	}
	for _, c := range []struct {
		name, mode, said, want string
	}{
		{"to a STRICT server", "STRICT", string(hello), "reset"},
		{"to a PERMISSIVE one", "PERMISSIVE", string(hello), string(hello)},
		{"no TLS", "PERMISSIVE", "\x16abc", "\x16abc"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.limits.Header = time.Hour
			at := r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode(c.mode))
			conn := r.dial(at)
			go func() { _, _ = io.WriteString(conn, c.said) }()
			heard := make([]byte, len(c.want))
			_, err := io.ReadFull(conn, heard)
			if c.want == "reset" {
				if err == nil || broke(err) != "reset" && broke(err) != "cut" && heard[0] != 21 {
					t.Errorf("%v", err)
				}
				if v := r.event(); v.Reason != BadHandshake || !strings.Contains(v.Err.Error(), "32768 bytes") {
					t.Errorf("%+v", v)
				}
				return
			}
			if err != nil || !bytes.Equal(heard, []byte(c.want)) {
				t.Errorf("heard %d bytes, %v", len(heard), err)
			}
		})
	}
}

// TestRoomBesideStrangers: a host whose clients mostly have no certificate has room
// for those of the mesh to come at the same time.
func TestRoomBesideStrangers(t *testing.T) {
	var w waiting
	for i := range 20_000 / waitingLeast {
		if _, ok := w.enter(netip.AddrFrom4([4]byte{10, 0, 0, byte(i % 2)}), 20_000, 15_000, func() { t.Fatal("one had to make room") }); !ok {
			t.Fatalf("%d of two addresses were too many", i)
		}
	}
}
