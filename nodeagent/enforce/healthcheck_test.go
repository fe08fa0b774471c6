package enforce

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// checked serves an application that answers a health check somehow.
func (r *rig) checked(answer func(net.Conn)) netip.AddrPort {
	app := r.app(func(c net.Conn) {
		_, _ = c.Read(make([]byte, 1000))
		answer(c)
	})
	e := r.enforcer("httpbin")
	at := r.in(e, app, Port{}, mode("STRICT"))
	e.Rule(Rules{Limits: r.limits, HealthChecks: []HealthCheck{{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Port: at.Port(), Path: "/healthz"}}})
	return at
}

const healthz = "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"

// TestHealthAnswers: a check is told the answer, and not what comes before it, nor a
// part of it as all.
func TestHealthAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		says, want string
		reason     Reason
	}{
		"early hints":         {"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\ndown", "HTTP/1.1 503", ""},
		"long, to its end":    {"HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat("x", longestAnswer), "reset", BadRequest},
		"no answer of HTTP":   {"220 mail.example ESMTP\r\n", "reset", BadRequest},
		"cut in the midst":    {"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\nup", "reset", PeerReset},
		"hints and no answer": {"HTTP/1.1 103 Early Hints\r\n\r\n", "reset", PeerReset},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			at := r.checked(func(conn net.Conn) { _, _ = io.WriteString(conn, c.says) })
			if heard := r.ask(at, healthz); !strings.HasPrefix(heard, c.want) || strings.Contains(heard, "103") {
				t.Errorf("heard %.100q, want %q", heard, c.want)
			}
			if v := r.event(); v.Reason != c.reason || v.Way != WayHealth {
				t.Errorf("%+v", v)
			}
		})
	}
}

// TestDrainOfCheck: a check that is under way ends with the time to drain.
func TestDrainOfCheck(t *testing.T) {
	r := newRig(t)
	r.limits.Header, r.limits.Drain = time.Hour, 10*time.Millisecond
	asked := make(chan struct{})
	app := r.app(func(c net.Conn) {
		b := make([]byte, 1000)
		_, _ = c.Read(b)
		close(asked)
		_, _ = c.Read(b)
	})
	e := r.enforcer("httpbin")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := addrPort(l.Addr())
	r.say(at, mode("STRICT"))
	e.Rule(Rules{Limits: r.limits, HealthChecks: []HealthCheck{{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Port: at.Port(), Path: "/healthz"}}})
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan error, 1)
	go func() { over <- e.Inbound(ctx, l, Port{App: app.String()}) }()
	c := r.dial(at)
	_, _ = io.WriteString(c, healthz)
	<-asked
	cancel()
	select {
	case err := <-over:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(deadline):
		t.Fatal("a check holds up the end")
	}
	if v := r.event(); v.Reason != Stopped {
		t.Errorf("%+v", v)
	}
}
