package enforce

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"strings"
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
		{"for servers alone", mesh(r.pair(r.root, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"for other uses", mesh(r.pair(r.root, func(c *x509.Certificate) {
			c.ExtKeyUsage, c.UnknownExtKeyUsage = nil, []asn1.ObjectIdentifier{{1, 2, 3, 4}}
		})), result{"tls", "", UntrustedPeer}, result{"tls", "", UntrustedPeer}, raw},
		{"for all uses", mesh(r.pair(r.root, func(c *x509.Certificate) { c.ExtKeyUsage = nil })), served, served, raw},
		{"begins like TLS", func(c net.Conn) string { return ask(c, "\x16\x01\x01\x00\x04abcd") }, result{"reset", "", BadHandshake}, result{"\x16\x01\x01\x00\x04abcd", WayPlain, ""}, result{"\x16\x01\x01\x00\x04abcd", WayPlain, ""}},
		{"half a ClientHello", func(c net.Conn) string { return ask(c, "\x16\x03\x01\x02\x00\x01\x00") }, result{"reset", "", PeerReset}, result{"\x16\x03\x01\x02\x00\x01\x00", WayPlain, ""}, result{"\x16\x03\x01\x02\x00\x01\x00", WayPlain, ""}},
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

// TestLate: a client that is slow to speak is judged by what it says, as long as
// the application has not spoken to it.
func TestLate(t *testing.T) {
	r := newRig(t)
	r.limits.ServerFirst = time.Millisecond
	heard := make(chan struct{}, 10)
	app := r.app(func(c net.Conn) { heard <- struct{}{}; echo(c) })
	at := r.in(r.enforcer("httpbin"), app, Port{}, mode("PERMISSIVE"))
	c := r.dial(at)
	<-heard // the agent has asked the application whether it has something to say
	client := tls.Client(c, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio"}})
	if said := ask(client, "hello"); said != "hello" {
		t.Errorf("mutual TLS that came late: %q", said)
	}
	if e := r.event(); e.Way != WayMTLS || e.Reason != "" {
		t.Errorf("%+v", e)
	}
	c = r.dial(at)
	<-heard
	<-heard
	if said := ask(c, "hello"); said != "hello" {
		t.Errorf("plain text that came late: %q", said)
	}
	if e := r.event(); e.Way != WayPlain || e.Reason != "" || e.In != 5 {
		t.Errorf("%+v", e)
	}
	c = r.dial(at)
	<-heard
	<-heard
	reset(c)
	if e := r.event(); e.Reason != PeerReset {
		t.Errorf("a client that went: %+v", e)
	}
}

// TestSilent: nobody speaks, and after Limits.Header nobody is waited for.
func TestSilent(t *testing.T) {
	r := newRig(t)
	r.limits.ServerFirst, r.limits.Header = time.Millisecond, 10*time.Millisecond
	e := r.enforcer("httpbin")
	at := r.in(e, r.app(echo), Port{}, mode("PERMISSIVE"))
	c := r.dial(at)
	waitFor(t, func() bool {
		return e.Open() == 1 && e.waiting.len() == 0
	})
	if said := ask(c, "hello"); said != "hello" {
		t.Errorf("heard %q", said)
	}
	if e := r.event(); e.Way != WayPlain || e.Reason != "" {
		t.Errorf("%+v", e)
	}
}

// TestWaiting: who has not shown who it is takes no place of those who have, nor
// of those who come.
func TestWaiting(t *testing.T) {
	var w waiting
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, connections := range []int{20, 20 * fewest} {
		share, places := min(max(connections/addressShare, fewest), connections/waitingShare), max(connections/waitingShare, fewest)
		share = min(share, places/2)
		var cut []int
		var leaves []func() bool
		enter := func(addr netip.Addr) bool {
			n := len(leaves)
			leave, ok := w.enter(addr, connections, 0, func() { cut = append(cut, n) })
			if ok {
				leaves = append(leaves, leave)
			}
			return ok
		}
		for i := range share {
			if !enter(a) {
				t.Fatalf("the %d. of %s is refused", i, a)
			}
		}
		if enter(a) || len(cut) > 0 {
			t.Error("one address takes more than its share")
		}
		for i := range share {
			if !enter(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i)})) {
				t.Fatalf("the %d. of %s is refused", i, b)
			}
		}
		if enter(b) {
			t.Error("one network takes more than its share")
		}
		if !leaves[0]() || leaves[0]() { // once too often
			t.Error("a place is given back twice")
		}
		if !enter(a) || enter(a) {
			t.Error("a place that was given back is not free, or twice")
		}
		for i := range 2 * places {
			if !enter(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i)})) {
				t.Fatalf("%d wait, and the next is refused", w.len())
			}
		}
		if w.len() != places || len(cut) != len(leaves)-1-places || cut[0] != 1 { // the oldest first, but for the one that had left
			t.Errorf("%d of %d wait, cut are %v", w.len(), places, cut)
		}
		for _, leave := range leaves {
			leave()
		}
		if w.len() != 0 || len(w.from) != 0 {
			t.Errorf("when all have left, %d wait: %v", w.len(), w.from)
		}
	}
}

// TestEvicted: many who are silent keep nobody out who has a certificate.
func TestEvicted(t *testing.T) {
	r := newRig(t)
	r.limits.Connections = 2 * fewest
	server := r.enforcer("httpbin")
	at := r.in(server, r.app(echo), Port{}, mode("STRICT"))
	for i := range 2 * fewest {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i))}}).Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range fewest {
		if e := r.event(); e.Reason != TooMany {
			t.Errorf("%+v", e)
		}
	}
	waitFor(t, func() bool { return server.Open() == fewest })
	if heard := ask(tls.Client(r.dial(at), &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{r.pair(r.root)}, NextProtos: []string{"istio"}}), "hello"); heard != "hello" {
		t.Errorf("heard %q", heard)
	}
	for e := r.event(); e.Way != WayMTLS; e = r.event() {
		if e.Reason != TooMany {
			t.Errorf("%+v", e)
		}
	}
}

// TestHealthChecks: what gets through is one GET of one path, with nothing by
// which it could mean something else.
func TestHealthChecks(t *testing.T) {
	r := newRig(t)
	app := r.app(func(c net.Conn) {
		request, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		text, _ := httputil.DumpRequest(request, false)
		_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
		_, _ = io.Copy(io.Discard, c) // it keeps the connection
	})
	checks := []HealthCheck{{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Path: "/healthz"}}
	e := r.enforcer("httpbin")
	at := r.in(e, app, Port{}, mode("STRICT"))
	checks[0].Port = at.Port()
	e.Rule(Rules{Limits: r.limits, HealthChecks: checks}) // while it listens
	got := r.ask(at, "GET /healthz HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe\r\nAccept: */*\r\nX-Original-URL: /admin\r\nCookie: a=b\r\nX-Forwarded-Client-Cert: URI=spiffe://x\r\nConnection: keep-alive\r\n\r\n")
	if !strings.HasSuffix(got, "GET /healthz HTTP/1.1\r\nHost: a\r\nAccept: */*\r\nConnection: close\r\nUser-Agent: kube-probe\r\n\r\n") || !strings.Contains(got, "Connection: close") {
		t.Errorf("the application was told:\n%s", got)
	}
	if e := r.event(); e.Way != WayHealth || e.Reason != "" || e.In == 0 || e.Out == 0 {
		t.Errorf("%+v", e)
	}
	if got := r.ask(at, "HEAD /healthz HTTP/1.0\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200 OK") {
		t.Errorf("HTTP/1.0: %q", got)
	}
	r.event()
	for _, said := range []string{
		"GET /admin HTTP/1.1\r\nHost: a\r\n\r\n", "POST /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "GET /healthz?a HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n", "GET /healthz HTTP/1.1\r\n\r\n",
		"GET /healthz HTTP/1.1\r\nHost: a\r\nUpgrade:\r\nUpgrade: websocket\r\n\r\n", "GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
	} {
		if got := r.ask(at, said); got != "reset" {
			t.Errorf("%q: %q", said, got)
		}
		if e := r.event(); e.Reason != PlainText {
			t.Errorf("%q: %+v", said, e)
		}
	}
}

// TestOfOthers: a service of another namespace, or one whose workloads are known
// by name, may be this port: it is as strict as they say.
func TestOfOthers(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	redirected := Port{Original: func(*net.TCPConn) (netip.AddrPort, error) { return app, nil }}
	at := r.listen(func(ctx context.Context, l net.Listener) error {
		return r.enforcer("httpbin").Inbound(ctx, l, redirected)
	})
	entry := func(namespace, endpoint string) string {
		return fmt.Sprintf("\n---\n{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e, namespace: %s}, spec: {hosts: [e.example], location: MESH_INTERNAL, resolution: DNS, ports: [{number: %d, name: tcp, protocol: TCP}], endpoints: [%s]}}", namespace, app.Port(), endpoint)
	}
	for what, c := range map[string]struct{ more, want string }{
		"no service port":                    {"", "hello"},
		"another namespace's":                {entry("shop", "{address: 127.0.0.1, labels: {security.istio.io/tlsMode: istio}}"), "reset"},
		"another namespace's, without proxy": {entry("shop", "{address: 127.0.0.1}"), "hello"},
		"one by name":                        {entry("default", "{address: vm.example, labels: {security.istio.io/tlsMode: istio}}"), "reset"},
		"one by name, elsewhere":             {entry("shop", "{address: vm.example, labels: {security.istio.io/tlsMode: istio}}"), "hello"},
	} {
		r.say(netip.MustParseAddrPort("127.0.0.1:1"), mode("STRICT")+c.more)
		if got := r.ask(at, "hello"); got != c.want {
			t.Errorf("%s: %q, want %q", what, got, c.want)
		}
		r.event()
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
