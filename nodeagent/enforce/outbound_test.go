package enforce

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"citadel/ca/catest"
)

// out is a program's way to a target through an Enforcer.
func (r *rig) out(e *Enforcer, to Target) netip.AddrPort {
	return r.listen(func(ctx context.Context, l net.Listener) error { return e.Outbound(ctx, l, FixedTo(to)) })
}

func rule(host, tls string) string {
	return fmt.Sprintf("---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r, namespace: default}, spec: {host: %s, trafficPolicy: {tls: %s}}}\n", host, tls)
}

var httpbin = Target{Host: "httpbin.default", Port: 8000}

// TestOutbound: what a client's side does, against each mode of a server;
// mtls-policy 3.
func TestOutbound(t *testing.T) {
	for _, c := range []struct {
		name, server, rule string
		server2            string // who the server really is
		want               string
		way                Way
		reason             Reason
	}{
		{"auto, STRICT", "STRICT", "", "httpbin", "hello", WayMTLS, ""},
		{"auto, PERMISSIVE", "PERMISSIVE", "", "httpbin", "hello", WayMTLS, ""},
		{"auto, DISABLE", "DISABLE", "", "httpbin", "hello", WayPlain, ""},
		{"plain, STRICT", "STRICT", "{mode: DISABLE}", "httpbin", "reset", WayPlain, PeerReset},
		{"plain, PERMISSIVE", "PERMISSIVE", "{mode: DISABLE}", "httpbin", "hello", WayPlain, ""},
		{"mTLS, DISABLE", "DISABLE", "{mode: ISTIO_MUTUAL}", "httpbin", "reset", WayNone, ServerRefusedTLS},
		{"mTLS to somebody else", "STRICT", "", "thief", "reset", WayNone, WrongIdentity},
		{"mTLS to whom the rule names", "STRICT", "{mode: ISTIO_MUTUAL, subjectAltNames: [\"spiffe://cluster.local/ns/default/sa/thief\"]}", "thief", "hello", WayMTLS, ""},
		{"mTLS to another than the rule names", "STRICT", "{mode: ISTIO_MUTUAL, subjectAltNames: [\"spiffe://cluster.local/ns/default/sa/thief\"]}", "httpbin", "reset", WayNone, WrongIdentity},
		{"SIMPLE, STRICT", "STRICT", "{mode: SIMPLE, insecureSkipVerify: true}", "httpbin", "reset", WayNone, ServerRefusedTLS},
		{"SIMPLE, a server that nobody vouches for", "STRICT", "{mode: SIMPLE}", "httpbin", "reset", WayNone, UntrustedPeer},
		{"MUTUAL without its files", "STRICT", "{mode: MUTUAL, clientCertificate: /none, privateKey: /none}", "httpbin", "reset", WayNone, BadConfiguration},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			objects := mode(c.server)
			if c.rule != "" {
				objects += "\n" + rule("httpbin", c.rule)
			}
			quiet := func(s *Settings) { s.Observe = func(Event) {} }
			r.in(r.enforcer(c.server2, quiet), r.app(echo), Port{Host: "httpbin.default.svc.cluster.local", ServicePort: 8000}, objects)
			heard := r.ask(r.out(r.enforcer("sleep"), httpbin), "hello")
			e := r.event()
			if heard != c.want || e.Way != c.way || e.Reason != c.reason {
				t.Errorf("heard %q, way %q, reason %q (%v), want %q, %q, %q", heard, e.Way, e.Reason, e.Err, c.want, c.way, c.reason)
			}
			if e.Service != "httpbin.default.svc.cluster.local:8000" || e.By == "" {
				t.Errorf("%+v", e)
			}
			if conflict := c.rule != "" && (c.server == "STRICT") == strings.Contains(c.rule, "DISABLE") || strings.Contains(c.rule, "SIMPLE"); conflict && e.Reason != "" && e.Fix == "" {
				t.Errorf("policy is the cause, and nothing says what would mend it: %+v", e)
			}
			want := map[Reason]string{UntrustedPeer: "ISTIO_MUTUAL in DestinationRule/default/r; or if it is none of the mesh's, name the roots", WrongIdentity: "run as who policy says"}[c.reason]
			if strings.Contains(c.rule, "subjectAltNames") && want != "" {
				want = "subjectAltNames of DestinationRule/default/r"
			}
			if !strings.Contains(e.Fix, want) {
				t.Errorf("what would mend it is %q, want %q", e.Fix, want)
			}
			if c.way == WayMTLS && e.Peer.Path() != "/ns/default/sa/"+c.server2 {
				t.Errorf("the peer is %s", e.Peer)
			}
		})
	}
}

// TestWithoutPolicy: nothing is more permissive than what is known.
func TestWithoutPolicy(t *testing.T) {
	r := newRig(t)
	at := r.listen(func(ctx context.Context, l net.Listener) error {
		return r.enforcer("httpbin").Inbound(ctx, l, Port{App: "127.0.0.1:1"})
	})
	if heard := r.ask(at, "hello"); heard != "reset" {
		t.Errorf("a server without a policy took plain text: %q", heard)
	}
	if e := r.event(); e.Reason != PlainText || e.Mode != "STRICT" || e.By != "there is no policy yet" {
		t.Errorf("%+v", e)
	}
	app := r.app(echo)
	if heard := r.ask(r.out(r.enforcer("sleep"), Target{Addr: app.Addr(), Port: app.Port()}), "hello"); heard != "reset" {
		t.Errorf("a client without a policy reached %q", heard)
	}
	if e := r.event(); e.Reason != NoPolicy {
		t.Errorf("%+v", e)
	}
}

// TestUnknown: what policy does not speak of is passed on as it comes, unless
// that is refused; a workload that it does not know is STRICT.
func TestUnknown(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("STRICT"))
	to := Target{Addr: app.Addr(), Port: app.Port()}
	if heard := r.ask(r.out(r.enforcer("sleep"), to), "hello"); heard != "hello" {
		t.Errorf("a destination that policy does not know: %q", heard)
	}
	if e := r.event(); e.Way != WayOpen || e.Mode != "" {
		t.Errorf("%+v", e)
	}
	if heard := r.ask(r.out(r.enforcer("sleep", func(s *Settings) { s.Rules.DenyUnknown = true }), to), "hello"); heard != "reset" {
		t.Errorf("a destination that is refused: %q", heard)
	}
	if e := r.event(); e.Reason != UnknownHost {
		t.Errorf("%+v", e)
	}
	redirected := func(at netip.AddrPort) Port {
		return Port{Original: func(*net.TCPConn) (netip.AddrPort, error) { return at, nil }}
	}
	for _, c := range []struct {
		name string
		at   netip.AddrPort
		say  string
		want string
	}{
		{"no service port of the workload", app, "127.0.0.1:1", "hello"},
		{"a workload that policy does not know", app, "127.0.0.9:1", "reset"},
	} {
		r.say(netip.MustParseAddrPort(c.say), mode("STRICT"))
		at := r.listen(func(ctx context.Context, l net.Listener) error {
			return r.enforcer("httpbin").Inbound(ctx, l, redirected(c.at))
		})
		if heard := r.ask(at, "hello"); heard != c.want {
			t.Errorf("%s: %q, want %q", c.name, heard, c.want)
		}
		r.event()
	}
	// a port that the operator calls a service port, and policy does not
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("DISABLE"))
	at := r.listen(func(ctx context.Context, l net.Listener) error {
		return r.enforcer("httpbin").Inbound(ctx, l, Port{App: app.String()})
	})
	if heard := r.ask(at, "hello"); heard != "reset" {
		t.Errorf("a port that is none of the Service's took plain text: %q", heard)
	}
	if e := r.event(); e.Mode != "STRICT" || !strings.Contains(e.By, "no Service or ServiceEntry declares port") {
		t.Errorf("%+v", e)
	}
}

// TestMarkIsMissing: a proxy that policy does not know of must not be the laxer
// for it.
func TestMarkIsMissing(t *testing.T) {
	r := newRig(t)
	at := r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode("PERMISSIVE")+`
---
{apiVersion: v1, kind: Pod, metadata: {name: httpbin-0, namespace: default, labels: {app: httpbin}}, status: {podIP: 127.0.0.1}}
`)
	if heard := r.ask(at, "hello"); heard != "reset" {
		t.Errorf("heard %q", heard)
	}
	if e := r.event(); e.Mode != "STRICT" || !strings.Contains(e.By, "tlsMode: istio") {
		t.Errorf("%+v", e)
	}
}

// TestLoop: connections to the agent's own listener are no destination.
func TestLoop(t *testing.T) {
	r := newRig(t)
	itself := func(c *net.TCPConn) (netip.AddrPort, error) { return localOf(c), nil }
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("DISABLE"))
	e := r.enforcer("sleep")
	for _, at := range []netip.AddrPort{
		r.listen(func(ctx context.Context, l net.Listener) error { return e.Outbound(ctx, l, Redirected(itself)) }),
		r.listen(func(ctx context.Context, l net.Listener) error { return e.Inbound(ctx, l, Port{Original: itself}) }),
	} {
		if heard := r.ask(at, "hello"); heard != "reset" {
			t.Errorf("heard %q", heard)
		}
		if e := r.event(); e.Reason != Loop {
			t.Errorf("%+v", e)
		}
	}
}

// TestCallsItself: an application that is the agent's own listener is none.
func TestCallsItself(t *testing.T) {
	r := newRig(t)
	e := r.enforcer("httpbin", func(s *Settings) { s.Rules.Limits.Connections = 10 })
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	port := addrPort(l.Addr()).Port()
	itself := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	r.say(itself, mode("DISABLE"))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- e.Inbound(ctx, l, Port{App: fmt.Sprintf("localhost:%d", port)}) }()
	if heard := r.ask(itself, "hello"); heard != "reset" {
		t.Errorf("heard %q", heard)
	}
	if e := r.event(); e.Reason != Loop {
		t.Errorf("%+v", e)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestNextEndpoint: one that does not answer is passed over.
func TestNextEndpoint(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	r.say(netip.MustParseAddrPort("127.0.0.1:1"), fmt.Sprintf(`
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: db, namespace: default}, spec: {hosts: [db.example], addresses: [240.0.0.1], ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: %d}], resolution: STATIC, endpoints: [{address: 127.0.0.3}, {address: 127.0.0.1}]}}`, app.Port()))
	at := r.out(r.enforcer("sleep"), Target{Addr: netip.MustParseAddr("240.0.0.1"), Port: 5432})
	for range 4 {
		if heard := r.ask(at, "hello"); heard != "hello" {
			t.Errorf("heard %q", heard)
		}
		if e := r.event(); e.Service != "db.example:5432" || e.Upstream != app {
			t.Errorf("%+v", e)
		}
	}
}

// TestNames: however a program calls a service, it is the service.
func TestNames(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	for _, c := range []struct {
		name    string
		to      Target
		entry   string
		service string
	}{
		{"short", Target{Host: "httpbin", Port: 8000}, "", "httpbin.default.svc.cluster.local:8000"},
		{"with a dot at its end, in capitals", Target{Host: "HTTPBIN.default.svc.", Port: 8000}, "", "httpbin.default.svc.cluster.local:8000"},
		{"another name of a workload's address", Target{Host: "localhost", Port: app.Port()}, "", "httpbin.default.svc.cluster.local:8000"},
		{"a name for an address", Target{Addr: netip.MustParseAddr("240.0.0.1"), Port: app.Port()}, "{hosts: [localhost], addresses: [240.0.0.1], resolution: DNS, ports: [{number: %d, name: tcp, protocol: TCP}]}", "localhost:"},
		{"an address that is one", Target{Addr: app.Addr(), Port: app.Port()}, "{hosts: [db.example], addresses: [127.0.0.0/8], ports: [{number: %d, name: tcp, protocol: TCP}]}", "db.example:"},
	} {
		objects := mode("DISABLE")
		at := app
		if c.entry != "" {
			at = netip.MustParseAddrPort("127.0.0.9:1")
			objects += fmt.Sprintf("\n---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: default}, spec: "+c.entry+"}", app.Port())
		}
		r.say(at, objects)
		if heard := r.ask(r.out(r.enforcer("sleep"), c.to), "hello"); heard != "hello" {
			t.Errorf("%s: heard %q", c.name, heard)
		}
		if e := r.event(); !strings.HasPrefix(e.Service, c.service) || e.Way != WayPlain {
			t.Errorf("%s: %+v", c.name, e)
		}
	}
}

// TestOwnCertificate: a host whose certificate is not there, or over, says so.
func TestOwnCertificate(t *testing.T) {
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	for name, install := range map[string]func(*rig, *Credentials) error{
		"none":    func(*rig, *Credentials) error { return nil },
		"expired": func(r *rig, c *Credentials) error { return c.Install(r.set(r.root, account("late"), expired)) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			late := r.enforcer("")
			if err := install(r, late.Credentials); err != nil {
				t.Fatal(err)
			}
			r.in(late, r.app(echo), Port{Host: "httpbin.default.svc.cluster.local", ServicePort: 8000}, mode("STRICT"))
			if heard := r.ask(r.out(late, httpbin), "hello"); heard != "reset" {
				t.Errorf("heard %q", heard)
			}
			if e := r.event(); e.Reason != NoCertificate {
				t.Errorf("its client: %+v", e)
			}
			r.ask(r.out(r.enforcer("sleep"), httpbin), "hello")
			for range 2 {
				if e := r.event(); e.Direction == Inbound && e.Reason != NoCertificate {
					t.Errorf("its server: %+v", e)
				}
			}
		})
	}
}

// TestLateAlert: in TLS 1.3 a server refuses a client after the handshake is done
// for that.
func TestLateAlert(t *testing.T) {
	r := newRig(t)
	foreign := newRig(t)
	foreign.root = catest.Root(t, time.Now(), catest.Spec{Name: "another"})
	r.in(r.enforcer("httpbin", func(s *Settings) { s.Observe = func(Event) {} }), r.app(echo), Port{}, mode("STRICT"))
	client := r.enforcer("")
	set := foreign.set(foreign.root, account("sleep"))
	set.Roots = r.set(r.root, account("sleep")).Roots
	if err := client.Credentials.Install(set); err != nil {
		t.Fatal(err)
	}
	if heard := r.ask(r.out(client, httpbin), "hello"); heard != "reset" {
		t.Errorf("heard %q", heard)
	}
	if e := r.event(); e.Reason != ServerRefusedTLS || e.Way != WayMTLS {
		t.Errorf("%+v", e)
	}
}

// TestOwnEndpoint: a host that calls itself by the service's name finds its agent
// where that listens, and the application itself where the agent's connections
// are not redirected.
func TestOwnEndpoint(t *testing.T) {
	r := newRig(t)
	here := func(s *Settings) {
		s.Addresses = func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("127.0.0.1")} }
	}
	app := r.app(echo)
	captured := r.enforcer("httpbin", here)
	r.say(app, mode("STRICT"))
	for _, to := range []Target{httpbin, {Addr: app.Addr(), Port: app.Port()}} {
		if heard := r.ask(r.out(captured, to), "hello"); heard != "hello" {
			t.Errorf("the application itself: %q", heard)
		}
		if e := r.event(); e.Way != WayPlain || e.Reason != "" {
			t.Errorf("%+v", e)
		}
	}
	fixed := r.enforcer("httpbin", here)
	at := r.in(fixed, app, Port{}, mode("STRICT"))
	waitFor(t, func() bool { return fixed.serves(at.String()) })
	if heard := r.ask(r.out(fixed, httpbin), "hello"); heard != "hello" {
		t.Errorf("by its own agent: %q", heard)
	}
	for range 2 {
		if e := r.event(); e.Way != WayMTLS || e.Peer != account("httpbin") {
			t.Errorf("%+v", e)
		}
	}
}
