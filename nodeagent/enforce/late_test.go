package enforce

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestResetAmidMuch: a reset is passed on at once, though the kernel was carrying
// and did not say which of the two sides it was.
func TestResetAmidMuch(t *testing.T) {
	defer func(d time.Duration) { lastWord = d }(lastWord)
	lastWord = 10 * deadline
	for name, server := range ways {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			heard := make(chan error, 1)
			come := make(chan struct{})
			app := r.app(func(c net.Conn) {
				_, err := io.CopyN(io.Discard, c, 3*spliceSize)
				close(come)
				if err == nil {
					_ = c.SetReadDeadline(time.Now().Add(deadline))
					_, err = io.Copy(io.Discard, c)
				}
				heard <- err
			})
			c := r.dial(r.chain(app, server))
			_, _ = c.Write(make([]byte, 3*spliceSize))
			<-come
			reset(c)
			if err := <-heard; err == nil || broke(err) != "reset" {
				t.Errorf("the application saw %v", err)
			}
		})
	}
}

// silent is a client of an application that is silent, too, where the server is
// PERMISSIVE; late says that the agent waits for whoever of the two speaks first.
func silent(t *testing.T, late bool) (*rig, *Enforcer, *net.TCPConn, func(objects string)) {
	r := newRig(t)
	r.limits.ServerFirst = deadline
	if late {
		r.limits.ServerFirst = time.Millisecond
	}
	e := r.enforcer("httpbin")
	at := r.in(e, r.app(echo), Port{}, mode("PERMISSIVE"))
	c := r.dial(at)
	waitFor(t, func() bool { return e.waiting.len() == 1 && (!late || known(e) == 1) })
	return r, e, c, func(objects string) { r.say(at, objects) }
}

// known is how many connections of its own an Enforcer knows.
func known(e *Enforcer) (n int) {
	e.dialled.Range(func(any, any) bool { n++; return true })
	return n
}

// TestHeldOverAChange: a client that was silent until the server became STRICT is
// not let in by what counted when it came.
func TestHeldOverAChange(t *testing.T) {
	for name, late := range map[string]bool{"that waits for the client": false, "that waits for both": true} {
		for kind, word := range map[string]string{"plain text": "hello", "the end": ""} {
			t.Run(name+", "+kind, func(t *testing.T) {
				r, _, c, say := silent(t, late)
				say(mode("STRICT"))
				if heard := ask(c, word); heard != "reset" {
					t.Errorf("heard %q", heard)
				}
				if v := r.event(); v.Reason != PlainText || v.Mode != "STRICT" || v.Fix == "" || v.Upstream != (netip.AddrPort{}) && v.In > 0 {
					t.Errorf("%+v", v)
				}
			})
		}
	}
}

// TestConnectionGivenBack: one that the agent has ended itself is not known any
// more: another program may have its port.
func TestConnectionGivenBack(t *testing.T) {
	_, e, c, _ := silent(t, true)
	_, _ = io.WriteString(c, "hello")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	if n := known(e); n != 1 {
		t.Errorf("%d connections are known, and one is open", n)
	}
}

// TestCapturedFixedPort: a port that has a listener of its own is served as that
// says, though a redirect captures it, too.
func TestCapturedFixedPort(t *testing.T) {
	r := newRig(t)
	e := r.enforcer("httpbin")
	fixed := r.in(e, r.app(echo), Port{}, mode("DISABLE"))
	captured := r.listen(func(ctx context.Context, l net.Listener) error {
		return e.Inbound(ctx, l, Port{Original: func(*net.TCPConn) (netip.AddrPort, error) { return fixed, nil }})
	})
	if heard := r.ask(captured, "hello"); heard != "hello" {
		t.Errorf("heard %q", heard)
	}
	if v := r.event(); v.Reason != ReasonNone || v.Local != fixed {
		t.Errorf("%+v", v)
	}
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("DISABLE")) // policy does not know the port any more
	if heard := r.ask(captured, "hello"); heard != "reset" {
		t.Errorf("without a Service: heard %q", heard)
	}
	if v := r.event(); v.Mode != "STRICT" {
		t.Errorf("%+v", v)
	}
}

// TestNoCheckAtAll: what cannot become a health check's request is not waited for.
func TestNoCheckAtAll(t *testing.T) {
	r := newRig(t)
	r.limits.Header = time.Hour
	e := r.enforcer("httpbin")
	at := r.in(e, r.app(echo), Port{}, mode("STRICT"))
	e.Rule(Rules{Limits: r.limits, HealthChecks: []HealthCheck{{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Port: at.Port(), Path: "/healthz"}}})
	for _, said := range []string{"\x00", "GEX", "POST /healthz", "GET healthz", "get /", "HEAD/", "\x80\x2e\x01"} {
		if heard := r.hold(at, said); heard != "reset" {
			t.Errorf("%q: heard %q", said, heard)
		}
		if v := r.event(); v.Reason != PlainText || !strings.Contains(v.Err.Error(), "/healthz") {
			t.Errorf("%q: %+v", said, v)
		}
	}
}

// TestEndBeforeReset: what ended before it was reset, because it was told more than
// it wanted to hear, has ended.
func TestEndBeforeReset(t *testing.T) {
	r := newRig(t)
	from := plainSide(r.dial(r.app(func(c net.Conn) { _, _ = io.WriteString(c, "answer") })))
	heard := make(chan string, 1)
	to := plainSide(r.dial(r.app(func(c net.Conn) { heard <- listens(c) })))
	waitFor(t, func() bool {
		_, err := from.Write([]byte("x"))
		return errors.Is(err, syscall.EPIPE)
	})
	f := newFlow(to, from, func() {})
	if err := f.carry(); f.n != 6 || err != nil {
		t.Errorf("%d bytes, %v", f.n, err)
	}
	if all := <-heard; all != "answer" {
		t.Errorf("heard %q", all)
	}
}

// TestNobodyBehind: where policy knows nobody who serves, that is told with what
// would mend it.
func TestNobodyBehind(t *testing.T) {
	r := newRig(t)
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("STRICT")+"\n"+rule("'*.local'", "{mode: ISTIO_MUTUAL}")+`---
{apiVersion: v1, kind: Service, metadata: {name: kubernetes, namespace: default}, spec: {clusterIP: 10.96.0.1, ports: [{name: https, port: 443, targetPort: 6443}]}}`)
	if heard := r.ask(r.out(r.enforcer("sleep"), Target{Addr: netip.MustParseAddr("10.96.0.1"), Port: 443}), "hello"); heard != "reset" {
		t.Errorf("heard %q", heard)
	}
	v := r.event()
	if text := v.Err.Error(); v.Reason != WrongIdentity || !strings.Contains(text, "ISTIO_MUTUAL, by DestinationRule/default/r, but the server is DISABLE") || !strings.Contains(text, "knows nobody") {
		t.Errorf("%+v", v)
	}
	if !strings.Contains(v.Fix, "for host kubernetes.default.svc.cluster.local, with tls mode DISABLE") {
		t.Errorf("what would mend it is %q", v.Fix)
	}
}

// TestNameOfNobody is looked up once: a resolver that does not answer is waited for
// no longer than Limits.Dial.
func TestNameOfNobody(t *testing.T) {
	r := newRig(t)
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("STRICT"))
	e := r.enforcer("sleep")
	nobody := Target{Host: "nobody.invalid", Port: 1}
	if route := e.routeTo(t.Context(), nobody); route.refused.reason != Unreachable || !strings.Contains(route.refused.Error(), "nobody.invalid") {
		t.Errorf("%+v", route.refused)
	}
	e.Rule(Rules{Limits: r.limits, DenyUnknown: true})
	_ = r.ask(r.out(e, nobody), "hello")
	if v := r.event(); v.Reason != UnknownHost {
		t.Errorf("%+v", v)
	}
}

// TestCutOff: whatever cut a connection off, a write that has heard of it keeps what
// is read after that from being an end.
func TestCutOff(t *testing.T) {
	for err, cut := range map[error]bool{
		syscall.ECONNRESET: true, syscall.ETIMEDOUT: true, syscall.EHOSTUNREACH: true, syscall.ECONNABORTED: true,
		syscall.EPIPE: false, net.ErrClosed: false, os.ErrDeadlineExceeded: false,
	} {
		s := &socket{}
		if got := s.noting(func() error { return &net.OpError{Op: "write", Err: os.NewSyscallError("write", err)} }); !errors.Is(got, err) || s.cut != cut {
			t.Errorf("%v: cut %v, %v", err, s.cut, got)
		}
	}
}

// TestSlowGoodbye: crypto/tls gives its goodbye five seconds, which would cut off a
// peer that is slow to take what comes before it.
func TestSlowGoodbye(t *testing.T) {
	r := newRig(t)
	here, there := r.ends()
	for name, c := range map[string]net.Conn{"bare": &socket{TCPConn: here}, "whole": whole{&socket{TCPConn: here}}, "sniffed": &sniffed{Conn: &socket{TCPConn: here}, passed: true}} {
		if err := c.SetWriteDeadline(past); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "bye"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := io.ReadFull(there, make([]byte, 3)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestGoneBeforeItWasTaken: the kernel forgets where a connection was meant for soon
// after it was reset: that is no loop.
func TestGoneBeforeItWasTaken(t *testing.T) {
	r := newRig(t)
	gone := func(c *net.TCPConn) (netip.AddrPort, error) {
		_, _ = c.Read(make([]byte, 1)) // until it is reset
		return netip.AddrPort{}, errors.New("it was not redirected")
	}
	e := r.enforcer("sleep")
	for _, at := range []netip.AddrPort{
		r.listen(func(ctx context.Context, l net.Listener) error { return e.Inbound(ctx, l, Port{Original: gone}) }),
		r.listen(func(ctx context.Context, l net.Listener) error { return e.Outbound(ctx, l, Redirected(gone)) }),
	} {
		reset(r.dial(at))
		if v := r.event(); v.Reason != PeerReset {
			t.Errorf("%+v", v)
		}
	}
}

// TestStoppedWhileJudged: who had not said yet what it wants when the agent stopped
// has not gone by itself.
func TestStoppedWhileJudged(t *testing.T) {
	r := newRig(t)
	r.limits.Drain = time.Millisecond
	e := r.enforcer("httpbin")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.say(addrPort(l.Addr()), mode("STRICT"))
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- e.Inbound(ctx, l, Port{App: "127.0.0.1:1"}) }()
	r.dial(addrPort(l.Addr()))
	waitFor(t, func() bool { return e.waiting.len() == 1 })
	cancel()
	if err := <-over; err != nil {
		t.Error(err)
	}
	if v := r.event(); v.Reason != Stopped {
		t.Errorf("%+v", v)
	}
	refused := passage{event: &Event{Reason: UnknownHost, Err: errors.New("who was told so already")}}
	if v := refused.carry(ctx); v.Reason != UnknownHost {
		t.Errorf("%+v", v)
	}
}
