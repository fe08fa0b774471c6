package enforce

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// chain is a program's way through two Enforcers to an application.
func (r *rig) chain(app netip.AddrPort, server string) netip.AddrPort {
	quiet := func(s *Settings) { s.Observe = func(Event) {} }
	r.in(r.enforcer("httpbin", quiet), app, Port{}, mode(server))
	return r.out(r.enforcer("sleep"), httpbin)
}

// ways are the two kinds of bytes on the wire.
var ways = map[string]string{"mTLS": "STRICT", "plain": "DISABLE"}

// TestBulk: what is large arrives whole, in both directions at once.
func TestBulk(t *testing.T) {
	const size = 9<<20 + 17
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c := r.dial(r.chain(r.app(echo), server))
			sent := sha256.New()
			go func() {
				_, _ = io.Copy(io.MultiWriter(c, sent), io.LimitReader(rand.Reader, size))
				_ = c.CloseWrite()
			}()
			heard := sha256.New()
			n, err := io.Copy(heard, c)
			if err != nil || n != size || !bytes.Equal(heard.Sum(nil), sent.Sum(nil)) {
				t.Errorf("%d of %d bytes, %v", n, size, err)
			}
			if e := r.event(); e.In != size || e.Out != size || e.Reason != "" {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestHalfClose: a side that has ended may still hear.
func TestHalfClose(t *testing.T) {
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			app := r.app(func(c net.Conn) {
				all, _ := io.ReadAll(c)
				_, _ = c.Write(append([]byte("after: "), all...))
			})
			if heard := r.ask(r.chain(app, server), "hello"); heard != "after: hello" {
				t.Errorf("%q", heard)
			}
			// and the other way round
			app = r.app(func(c net.Conn) {
				_, _ = io.WriteString(c, "bye")
				_ = c.(*net.TCPConn).CloseWrite()
				all, _ := io.ReadAll(c)
				if string(all) != "still here" {
					t.Errorf("the application heard %q", all)
				}
			})
			c := r.dial(r.chain(app, server))
			if all, err := io.ReadAll(c); string(all) != "bye" || err != nil {
				t.Errorf("%q, %v", all, err)
			}
			if _, err := io.WriteString(c, "still here"); err != nil {
				t.Error(err)
			}
			_ = c.CloseWrite()
			r.event()
		})
	}
}

// TestCut: a side that is cut cuts the other, and what is not whole does not look
// as if it were.
func TestCut(t *testing.T) {
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			app := r.app(func(c net.Conn) {
				_, _ = io.WriteString(c, "half")
				_, _ = io.ReadFull(c, make([]byte, 2))
				reset(c.(*net.TCPConn))
			})
			c := r.dial(r.chain(app, server))
			_, _ = io.WriteString(c, "go")
			if _, err := io.ReadAll(c); err == nil || broke(err) != "reset" {
				t.Errorf("the client saw %v", err)
			}
			if e := r.event(); e.Reason != PeerReset {
				t.Errorf("%+v", e)
			}
			gone := make(chan error, 1)
			app = r.app(func(c net.Conn) { _, err := io.ReadAll(c); gone <- err })
			c = r.dial(r.chain(app, server))
			_, _ = io.WriteString(c, "half")
			reset(c)
			if err := <-gone; err == nil {
				t.Error("the application took a cut client for one that had ended")
			}
		})
	}
}

// TestCutTLS: TLS that ends without saying so is cut, RFC 8446 6.1: anybody on the
// way could have ended it.
func TestCutTLS(t *testing.T) {
	r := newRig(t)
	heard := make(chan error, 1)
	app := r.app(func(c net.Conn) { _, err := io.ReadAll(c); heard <- err })
	at := r.in(r.enforcer("httpbin"), app, Port{}, mode("STRICT"))
	raw := r.dial(at)
	client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio"}})
	if _, err := io.WriteString(client, "half of an upload"); err != nil {
		t.Fatal(err)
	}
	_ = raw.CloseWrite()
	if err := <-heard; err == nil {
		t.Error("the application took half of an upload for all of it")
	}
	if e := r.event(); e.Reason != PeerReset {
		t.Errorf("%+v", e)
	}
	set := r.set(r.root, account("httpbin"))
	pair := tls.Certificate{PrivateKey: set.SVID.PrivateKey, Certificate: [][]byte{set.SVID.Certificates[0].Raw}}
	server := r.app(func(c net.Conn) {
		conn := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAnyClientCert})
		_, _ = io.WriteString(conn, "half of an answer")
		_, _ = io.ReadFull(conn, make([]byte, 5)) // then the connection is closed, and TLS is not
	})
	r.say(server, mode("STRICT"))
	if said := r.ask(r.out(r.enforcer("sleep"), httpbin), "hello"); said != "reset" {
		t.Errorf("heard %q", said)
	}
	if e := r.event(); e.Reason != PeerReset {
		t.Errorf("%+v", e)
	}
}

// TestBackPressure: who does not read is not read for without end.
func TestBackPressure(t *testing.T) {
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			release := make(chan struct{})
			app := r.app(func(c net.Conn) { <-release; _, _ = io.Copy(io.Discard, c) })
			defer close(release)
			c := r.dial(r.chain(app, server))
			_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second)) // the kernel's buffers are full long before
			n, err := io.Copy(c, io.LimitReader(zeroes{}, 1<<30))
			if err == nil || n > 1<<29 {
				t.Errorf("%d bytes were taken that nobody reads", n)
			}
		})
	}
}

type zeroes struct{}

func (zeroes) Read(b []byte) (int, error) { return len(b), nil }

// TestRotation: who is connected stays so, who connects is judged by what is new.
func TestRotation(t *testing.T) {
	r := newRig(t)
	server := r.enforcer("httpbin", func(s *Settings) { s.Observe = func(Event) {} })
	at := r.in(server, r.app(echo), Port{}, mode("STRICT"))
	client := r.enforcer("sleep")
	through := r.out(client, httpbin)
	old := r.dial(through)
	answer := func() error {
		if _, err := io.WriteString(old, "x"); err != nil {
			return err
		}
		_, err := io.ReadFull(old, make([]byte, 1))
		return err
	}
	if err := answer(); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Enforcer{server, client} {
		id := e.Credentials.ID()
		if err := e.Credentials.Install(r.set(r.root, id)); err != nil {
			t.Fatal(err)
		}
	}
	if err := answer(); err != nil {
		t.Errorf("a new certificate cut a connection: %v", err)
	}
	if heard := r.ask(through, "hello"); heard != "hello" {
		t.Errorf("after a new certificate: %q", heard)
	}
	r.say(at, mode("DISABLE"))
	if heard := r.ask(at, "hello"); heard != "hello" {
		t.Errorf("plain text after the policy has turned to DISABLE: %q", heard)
	}
	if err := answer(); err != nil {
		t.Errorf("another policy cut a connection: %v", err)
	}
	r.say(at, mode("STRICT"))
	if heard := r.ask(at, "hello"); heard != "reset" {
		t.Errorf("plain text after the policy has turned to STRICT: %q", heard)
	}
}

// TestLimits: what is over a limit is refused at once, and what ends makes room.
func TestLimits(t *testing.T) {
	r := newRig(t)
	r.limits.Connections, r.limits.HandshakesPerSecond = 2, 1
	e := r.enforcer("httpbin")
	at := r.in(e, r.app(echo), Port{}, mode("PERMISSIVE"))
	one, two := r.dial(at), r.dial(at)
	for _, c := range []net.Conn{one, two} {
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if heard := r.ask(at, "hello"); heard != "reset" {
		t.Errorf("the third of two: %q", heard)
	}
	if e := r.event(); e.Reason != TooMany {
		t.Errorf("%+v", e)
	}
	one.Close()
	r.event()
	waitFor(t, func() bool { return e.Open() == 1 })
	if heard := r.ask(at, "hello"); heard != "hello" {
		t.Errorf("after one has ended: %q", heard)
	}
	r.event()
	// handshakes
	r.say(at, mode("STRICT"))
	through := r.out(r.enforcer("sleep", func(s *Settings) { s.Observe, s.Rules.Limits = func(Event) {}, DefaultLimits }), httpbin)
	next := func() Reason {
		r.ask(through, "hello")
		e := r.event()
		return e.Reason
	}
	if reason := next(); reason != "" {
		t.Errorf("the first handshake of an agent: %q", reason)
	}
	refused := false
	for range 100 { // on however slow a machine, two come within a second
		waitFor(t, func() bool { return e.Open() <= 1 })
		if refused = next() == TooFast; refused {
			break
		}
	}
	if !refused {
		t.Error("a hundred handshakes were taken where one a second may come")
	}
}

// TestSlow: who does not say what it wants is cut.
func TestSlow(t *testing.T) {
	r := newRig(t)
	r.limits.Header, r.limits.ServerFirst = 10*time.Millisecond, 10*time.Millisecond
	at := r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode("STRICT"))
	for _, said := range []string{"", "\x16", "\x16\x03\x01\x00\x20\x01"} {
		if heard := r.hold(at, said); heard != "reset" {
			t.Errorf("%q: heard %q", said, heard)
		}
		if e := r.event(); e.Reason != Slow {
			t.Errorf("%q: %+v", said, e)
		}
	}
}

// TestDrain: a stop takes no more, lets those who are there end, and cuts them
// after that.
func TestDrain(t *testing.T) {
	for _, ends := range []bool{true, false} {
		r := newRig(t)
		if !ends {
			r.limits.Drain = 10 * time.Millisecond
		}
		e := r.enforcer("httpbin")
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		at := addrPort(l.Addr())
		r.say(at, mode("DISABLE"))
		ctx, cancel := context.WithCancel(context.Background())
		var served sync.WaitGroup
		app := r.app(echo)
		served.Go(func() {
			if err := e.Inbound(ctx, l, Port{App: app.String()}); err != nil {
				t.Error(err)
			}
		})
		c := r.dial(at)
		_, _ = io.WriteString(c, "x")
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		cancel()
		waitFor(t, func() bool {
			other, err := net.Dial("tcp", at.String())
			if err == nil {
				other.Close()
			}
			return err != nil
		})
		if ends {
			if heard := ask(c, "hello"); heard != "hello" {
				t.Errorf("while it drains: %q", heard)
			}
		}
		served.Wait()
		ev := r.event()
		for ev.Remote != localOf(c) { // of those who asked whether it still listens
			ev = r.event()
		}
		if (ev.Reason == Stopped) == ends || !ends && !errors.Is(ev.Err, errStopped) {
			t.Errorf("%+v", ev)
		}
		if e.Open() != 0 {
			t.Errorf("%d connections are open after the end", e.Open())
		}
	}
}

func waitFor(t *testing.T, what func() bool) {
	t.Helper()
	for end := time.Now().Add(deadline); !what(); {
		if time.Now().After(end) {
			t.Fatal("it does not come")
		}
		<-time.After(time.Millisecond)
	}
}
