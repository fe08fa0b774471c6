package enforce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// TestClusterIP: the endpoint is left to whoever leads on from a Service's address,
// unless there is no way to it from here.
func TestClusterIP(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	closed, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := addrPort(closed.Addr())
	closed.Close()
	loopbackOnly := func(s *Settings) {
		s.Dialer = &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}}
	}
	for _, c := range []struct {
		name, clusterIP string
		port            uint16
		want            string
		upstream        netip.AddrPort
	}{
		{"led on", app.Addr().String(), app.Port(), "hello", app},
		{"no way to it", "198.51.100.7", 8000, "hello", app},
		{"refused where it leads", nobody.Addr().String(), nobody.Port(), "reset", netip.AddrPort{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			r.say(netip.MustParseAddrPort("127.0.0.9:1"), mode("DISABLE")+fmt.Sprintf(`
---
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: default}, spec: {clusterIP: %s, selector: {app: web}, ports: [{name: http, port: %d, targetPort: %d}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-0, namespace: default, labels: {app: web}}, spec: {serviceAccountName: web, containers: [{name: web}]}, status: {podIP: %s}}`, c.clusterIP, c.port, app.Port(), app.Addr()))
			heard := r.ask(r.out(r.enforcer("sleep", loopbackOnly), Target{Addr: netip.MustParseAddr(c.clusterIP), Port: c.port}), "hello")
			if e := r.event(); heard != c.want || e.Upstream != c.upstream || !strings.HasPrefix(e.Service, "web.default.svc.cluster.local:") {
				t.Errorf("heard %q, %+v", heard, e)
			}
		})
	}
}

// TestUndeclaredPort: what is denied because policy does not know it includes ports
// that a service does not declare, however it is called.
func TestUndeclaredPort(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	r.say(app, mode("DISABLE")+fmt.Sprintf(`
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, namespace: default}, spec: {hosts: [a.example], addresses: [240.0.0.1], ports: [{number: 443, name: tcp, protocol: TCP, targetPort: %[1]d}], resolution: STATIC, endpoints: [{address: 127.0.0.1}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: b, namespace: default}, spec: {hosts: [b.example], addresses: [240.0.0.1], ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: %[1]d}], resolution: STATIC, endpoints: [{address: 127.0.0.1}]}}
---
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: range, namespace: default}, spec: {hosts: [range.example], addresses: [127.0.0.0/8], ports: [{number: 443, name: tcp, protocol: TCP}], resolution: NONE}}
---
{apiVersion: v1, kind: Service, metadata: {name: outside, namespace: default}, spec: {type: ExternalName, externalName: localhost}}`, app.Port()))
	e := r.enforcer("sleep", func(s *Settings) { s.Rules.DenyUnknown = true })
	for name, c := range map[string]struct {
		to   Target
		want string
	}{
		"its port":                       {httpbin, "hello"},
		"its port at the workload":       {Target{Addr: app.Addr(), Port: app.Port()}, "hello"},
		"of two with one address":        {Target{Addr: netip.MustParseAddr("240.0.0.1"), Port: 5432}, "hello"},
		"of neither":                     {Target{Addr: netip.MustParseAddr("240.0.0.1"), Port: 5433}, "reset"},
		"another port":                   {Target{Host: "httpbin.default", Port: app.Port()}, "reset"},
		"another port of the cluster IP": {Target{Addr: netip.MustParseAddr("10.96.0.7"), Port: app.Port()}, "reset"},
	} {
		if heard := r.ask(r.out(e, c.to), "hello"); heard != c.want {
			t.Errorf("%s: heard %q, want %q", name, heard, c.want)
		}
		if v := r.event(); (c.want == "reset") != (v.Reason == UnknownHost) {
			t.Errorf("%s: %+v", name, v)
		}
	}
	if !e.plans.of(e.Credentials.ID()).route(Target{Host: "outside.default", Port: 9}).declared {
		t.Error("a Service of type ExternalName that lists no ports has none")
	}
}

// TestNameOfAnAddress: whoever resolved a service's name elsewhere gets a server that
// bears that name, and no other.
func TestNameOfAnAddress(t *testing.T) {
	for host, want := range map[string]string{"app.example": "hello", "other.example": "reset"} {
		t.Run(host, func(t *testing.T) {
			r := newRig(t)
			set := r.set(r.root, account("app"), func(c *x509.Certificate) { c.DNSNames = []string{"app.example"} })
			pair := tls.Certificate{PrivateKey: set.SVID.PrivateKey, Certificate: [][]byte{set.SVID.Certificates[0].Raw}}
			app := r.app(func(c net.Conn) {
				server := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}})
				if server.Handshake() == nil && server.ConnectionState().ServerName == host {
					echo(server)
					_ = server.CloseWrite()
				}
			})
			ca := filepath.Join(t.TempDir(), "ca")
			if err := os.WriteFile(ca, r.root.PEM(), 0o600); err != nil {
				t.Fatal(err)
			}
			r.say(netip.MustParseAddrPort("127.0.0.9:1"), fmt.Sprintf(`
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: default}, spec: {hosts: [%s], addresses: [240.0.0.1], ports: [{number: 443, name: tcp, protocol: TCP, targetPort: %d}], resolution: STATIC, endpoints: [{address: 127.0.0.1}]}}
%s`, host, app.Port(), rule(host, "{mode: SIMPLE, caCertificates: "+ca+"}")))
			heard := r.ask(r.out(r.enforcer("sleep"), Target{Addr: netip.MustParseAddr("240.0.0.1"), Port: 443}), "hello")
			if v := r.event(); heard != want || (want == "reset") != (v.Reason == WrongIdentity) {
				t.Errorf("heard %q: %+v", heard, v)
			}
		})
	}
}

// TestExpiredServer: a certificate that is over is told as that, whoever's roots
// vouched for it.
func TestExpiredServer(t *testing.T) {
	over := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	for _, client := range []string{"ISTIO_MUTUAL", "SIMPLE"} {
		r := newRig(t)
		set := r.set(r.root, account("httpbin"), over)
		pair := tls.Certificate{PrivateKey: set.SVID.PrivateKey, Certificate: [][]byte{set.SVID.Certificates[0].Raw}}
		app := r.app(func(c net.Conn) { _ = tls.Server(c, &tls.Config{Certificates: []tls.Certificate{pair}}).Handshake() })
		ca := filepath.Join(t.TempDir(), "ca")
		if err := os.WriteFile(ca, r.root.PEM(), 0o600); err != nil {
			t.Fatal(err)
		}
		to, objects := httpbin, mode("STRICT")+"\n"+rule("httpbin", "{mode: ISTIO_MUTUAL}")
		if client == "SIMPLE" {
			to = Target{Host: "db.example", Port: 5432}
			objects = fmt.Sprintf(`
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: db, namespace: default}, spec: {hosts: [db.example], ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: %d}], resolution: STATIC, endpoints: [{address: 127.0.0.1}]}}
%s`, app.Port(), rule("db.example", "{mode: SIMPLE, caCertificates: "+ca+"}"))
		}
		r.say(app, objects)
		if heard := r.ask(r.out(r.enforcer("sleep"), to), "hello"); heard != "reset" {
			t.Errorf("%s: heard %q", client, heard)
		}
		if v := r.event(); v.Reason != UntrustedPeer || !strings.Contains(v.Fix, "renewed") {
			t.Errorf("%s: %+v", client, v)
		}
	}
}

// TestMovingName: a name that policy does not know is looked up to see whether its
// address is of the mesh, and again to connect: where that leads to the mesh, policy
// for the address counts.
func TestMovingName(t *testing.T) {
	for who, want := range map[string]struct {
		heard  string
		way    Way
		reason Reason
	}{"httpbin": {"hello", WayMTLS, ""}, "thief": {"reset", WayNone, WrongIdentity}} {
		r := newRig(t)
		at := r.in(r.enforcer(who, func(s *Settings) { s.Observe = func(Event) {} }), r.app(echo), Port{Host: "httpbin.default.svc.cluster.local", ServicePort: 8000}, mode("STRICT"))
		names := moving(t, netip.MustParseAddr("127.0.0.77"), at.Addr())
		e := r.enforcer("sleep", func(s *Settings) { s.Dialer = &net.Dialer{Resolver: names} })
		heard := r.ask(r.out(e, Target{Host: "moving.example", Port: at.Port()}), "hello")
		if v := r.event(); heard != want.heard || v.Way != want.way || v.Reason != want.reason || v.Service != "httpbin.default.svc.cluster.local:8000" {
			t.Errorf("%s: heard %q, %+v", who, heard, v)
		}
	}
}

// moving resolves all names to the first of the addresses, the next time to the
// second, and so on.
func moving(t *testing.T, addresses ...netip.Addr) *net.Resolver {
	server, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { server.Close(); <-done })
	go func() {
		defer close(done)
		for word := make([]byte, 512); ; {
			n, from, err := server.ReadFrom(word)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(word[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: addresses[0].As4()}}}
				addresses = append(addresses[1:], addresses[0])
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}
