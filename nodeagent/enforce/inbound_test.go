package enforce

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"testing"
	"time"

	"citadel/ca/catest"
)

// TestInbound: who may come in, by mode; mtls-policy 3, specifications 9.
func TestInbound(t *testing.T) {
	r := newRig(t)
	now := time.Now()
	foreign := catest.Root(t, now, catest.Spec{Name: "another"})
	overTLS := func(c *tls.Config) func(net.Conn) string {
		return func(conn net.Conn) string {
			c.InsecureSkipVerify = true
			client := tls.Client(conn, c)
			if err := client.Handshake(); err != nil {
				conn.Close()
				return broke(err)
			}
			return ask(client, "hello")
		}
	}
	mesh := func(cert tls.Certificate) func(net.Conn) string {
		return overTLS(&tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"istio"}})
	}
	type result struct {
		heard  string
		way    Way
		reason Reason
	}
	served := result{"hello", WayMTLS, ""}
	passed := result{"hello", WayPlain, ""}
	raw := result{"tls", WayPlain, ""} // the application echoes the ClientHello; how that ends is open
	for _, c := range []struct {
		name                        string
		come                        func(net.Conn) string
		strict, permissive, disable result
	}{
		{"plain text", func(c net.Conn) string { return ask(c, "hello") }, result{"reset", "", PlainText}, passed, passed},
		{"of the mesh", mesh(r.pair(r.root)), served, served, raw},
		{"of the mesh, TLS 1.2", overTLS(&tls.Config{MaxVersion: tls.VersionTLS12, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio"}}), served, served, raw},
		{"of the mesh, with metadata", overTLS(&tls.Config{Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio-peer-exchange"}}), served, served, raw},
		{"a certificate of the mesh, TLS of its own", overTLS(&tls.Config{Certificates: []tls.Certificate{r.pair(r.root)}}), served, raw, raw},
		{"the same, TLS 1.3 alone", overTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"h2"}}), served, raw, raw},
		{"TLS of its own", overTLS(&tls.Config{}), result{"tls", "", NoClientCert}, raw, raw},
		{"of the mesh without a certificate", overTLS(&tls.Config{NextProtos: []string{"istio"}}), result{"tls", "", NoClientCert}, result{"tls", "", NoClientCert}, raw},
		{"TLS 1.0", overTLS(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS10, Certificates: []tls.Certificate{r.pair(r.root)}}), result{"tls", "", BadHandshake}, raw, raw},
		{"TLS 1.1 of the mesh", overTLS(&tls.Config{MinVersion: tls.VersionTLS11, MaxVersion: tls.VersionTLS11, NextProtos: []string{"istio"}}), result{"tls", "", BadHandshake}, result{"tls", "", BadHandshake}, raw},
		{"another root", mesh(r.pair(foreign)), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"expired", mesh(r.pair(r.root, func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Hour)
		})), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"not valid yet", mesh(r.pair(r.root, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Hour) })), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"a CA's certificate", mesh(r.pair(r.root, func(c *x509.Certificate) {
			c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		})), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"no SPIFFE ID", mesh(r.pair(r.root, func(c *x509.Certificate) { c.URIs, c.DNSNames = nil, []string{"sleep.default"} })), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"begins like TLS", func(c net.Conn) string { return ask(c, "\x16\x01\x01\x00\x04abcd") }, result{"reset", "", BadHandshake}, result{"\x16\x01\x01\x00\x04abcd", WayPlain, ""}, result{"\x16\x01\x01\x00\x04abcd", WayPlain, ""}},
		{"half a ClientHello", func(c net.Conn) string { return ask(c, "\x16\x03\x01\x02\x00\x01\x00") }, result{"reset", "", PeerReset}, result{"reset", "", PeerReset}, result{"\x16\x03\x01\x02\x00\x01\x00", WayPlain, ""}},
		{"a ClientHello that says that it is 16 MiB", func(c net.Conn) string {
			return ask(c, "\x16\x03\x01\x40\x00\x01\xff\xff\xff"+string(make([]byte, 0x4000)))
		}, result{"reset", "", BadHandshake}, result{"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + string(make([]byte, 0x4000)), WayPlain, ""}, result{"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + string(make([]byte, 0x4000)), WayPlain, ""}},
	} {
		for _, m := range []struct {
			mode string
			want result
		}{{"STRICT", c.strict}, {"PERMISSIVE", c.permissive}, {"DISABLE", c.disable}} {
			t.Run(c.name+" "+m.mode, func(t *testing.T) {
				r.t = t
				at := r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode(m.mode))
				heard := c.come(r.dial(at))
				if heard == "reset" && m.want.heard == "tls" && m.want.reason != "" {
					heard = "tls" // the alert was lost
				}
				e := r.event()
				if got := (result{heard, e.Way, e.Reason}); got != m.want && (m.want != raw || heard != "tls" || e.Way != WayPlain) {
					t.Errorf("got %+v, want %+v (%v)", got, m.want, e.Err)
				}
				if e.Service != "httpbin.default.svc.cluster.local:8000" || e.Mode != m.mode || e.By != "PeerAuthentication/istio-system/default" {
					t.Errorf("event says %s is %s by %s", e.Service, e.Mode, e.By)
				}
				if m.want == served && e.Peer != account("sleep") {
					t.Errorf("the peer is %s", e.Peer)
				}
				if (e.Reason == "") != (e.Err == nil) {
					t.Errorf("reason %q, and the sentence is %v", e.Reason, e.Err)
				}
			})
		}
	}
}

// TestServerFirst: an application that speaks first is served where the client
// waits for it.
func TestServerFirst(t *testing.T) {
	r := newRig(t)
	r.limits.ServerFirst = time.Millisecond
	app := r.app(func(c net.Conn) { _, _ = io.WriteString(c, "220 welcome"); echo(c) })
	at := r.in(r.enforcer("httpbin"), app, Port{}, mode("PERMISSIVE"))
	c := r.dial(at)
	hello := make([]byte, 11)
	if _, err := io.ReadFull(c, hello); err != nil || string(hello) != "220 welcome" {
		t.Fatalf("%q, %v", hello, err)
	}
	if heard := ask(c, "EHLO"); heard != "EHLO" {
		t.Errorf("after that: %q", heard)
	}
	if e := r.event(); e.Way != WayPlain || e.Reason != "" || e.In != 4 || e.Out != 15 {
		t.Errorf("%+v", e)
	}
}

// TestAgreedProtocol: an application behind STRICT is spoken to as it most likely
// understands; mtls-policy 2.2.
func TestAgreedProtocol(t *testing.T) {
	r := newRig(t)
	at := r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode("STRICT"))
	for _, c := range []struct {
		offers []string
		agreed string
	}{
		{[]string{"h2", "http/1.1"}, "http/1.1"},
		{[]string{"h2"}, "h2"},
		{[]string{"istio-http/1.1", "istio", "http/1.1"}, "istio-http/1.1"},
		{[]string{"istio-h2", "istio", "h2"}, "istio-h2"},
		{[]string{"istio-peer-exchange", "istio"}, "istio"},
		{[]string{"istio-peer-exchange"}, ""},
		{[]string{"another"}, ""},
		{nil, ""},
	} {
		conn := tls.Client(r.dial(at), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: c.offers})
		if err := conn.Handshake(); err != nil || conn.ConnectionState().NegotiatedProtocol != c.agreed {
			t.Errorf("%q: agreed on %q, want %q: %v", c.offers, conn.ConnectionState().NegotiatedProtocol, c.agreed, err)
		}
		conn.Close()
		r.event()
	}
}
