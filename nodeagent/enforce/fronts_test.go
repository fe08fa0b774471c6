package enforce

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"
)

// asked is what a program of SOCKS says to reach HOST:PORT, and says then.
func asked(host string, port uint16, then string) string {
	return named(host, string([]byte{byte(port >> 8), byte(port)})) + then
}

// front serves an Outbound with a front.
func (r *rig) front(e *Enforcer, f Front) netip.AddrPort {
	return r.listen(func(ctx context.Context, l net.Listener) error { return e.Outbound(ctx, l, f) })
}

// TestSOCKSCarries: to a service, by its name, over mTLS; what is said at once,
// before any reply, arrives.
func TestSOCKSCarries(t *testing.T) {
	r := newRig(t)
	r.in(r.enforcer("httpbin"), r.app(echo), Port{}, mode("STRICT"))
	at := r.front(r.enforcer("sleep"), SOCKS)
	heard := r.ask(at, asked("httpbin.default", 8000, "hello"))
	if want := agreed + refusal(replyDone) + "hello"; heard != want {
		t.Errorf("heard %q, want %q", heard, want)
	}
	for range 2 {
		if e := r.event(); e.Reason != ReasonNone || e.Way != WayMTLS || e.Direction == Outbound && (e.Service != "httpbin.default.svc.cluster.local:8000" || e.In != 5 || e.Out != 5) {
			t.Errorf("%+v", e)
		}
	}
}

// TestFrontsRefuse: a program is told, and its connection ends, but is not reset.
func TestFrontsRefuse(t *testing.T) {
	r := newRig(t)
	plain := r.app(echo)
	r.say(plain, mode("DISABLE")+"\n---\n{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: d, namespace: default}, spec: {host: httpbin, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}}")
	e := r.enforcer("sleep", func(s *Settings) { s.Rules.DenyUnknown = true })
	socks, proxy := r.front(e, SOCKS), r.front(e, HTTPProxy)
	for name, c := range map[string]struct {
		at     netip.AddrPort
		say    string
		want   string
		reason Reason
	}{
		"SOCKS, unknown":        {socks, asked("elsewhere.invalid", 80, "hello"), agreed + refusal(replyNotAllowed), UnknownHost},
		"SOCKS, no mTLS there":  {socks, asked("httpbin.default", 8000, "hello"), agreed + refusal(replyNotAllowed), ServerRefusedTLS},
		"SOCKS, BIND":           {socks, greeting + "\x05\x02\x00\x01\x0a\x01\x02\x03\x00\x50", agreed + refusal(replyNoSuchCommand), BadRequest},
		"SOCKS, HTTP":           {socks, "GET / HTTP/1.1\r\n\r\n", "", BadRequest},
		"SOCKS, half":           {socks, "\x05", "", PeerReset},
		"CONNECT, unknown":      {proxy, "CONNECT elsewhere.invalid:80 HTTP/1.1\r\n\r\nhello", "HTTP/1.1 403 Forbidden", UnknownHost},
		"CONNECT, no mTLS":      {proxy, "CONNECT httpbin.default:8000 HTTP/1.1\r\n\r\nhello", "HTTP/1.1 502 Bad Gateway", ServerRefusedTLS},
		"CONNECT, GET":          {proxy, "GET http://httpbin.default/ HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 405 Method Not Allowed", BadRequest},
		"CONNECT, POST":         {proxy, "POST http://a/ HTTP/1.1\r\nContent-Length: 40000\r\n\r\n" + strings.Repeat("x", 40000), "HTTP/1.1 405 Method Not Allowed", BadRequest},
		"CONNECT, long":         {proxy, "CONNECT a:80 HTTP/1.1\r\n" + strings.Repeat("A: b\r\n", 5000) + "\r\n", "HTTP/1.1 431 ", BadRequest},
		"CONNECT, half":         {proxy, "CONNECT a:80 HTTP/1.1\r\n", "HTTP/1.1 408 Request Timeout", PeerReset},
		"CONNECT, SOCKS to it":  {proxy, asked("httpbin.default", 8000, "\r\n\r\n"), "HTTP/1.1 400 Bad Request", BadRequest},
		"CONNECT, a name's tab": {proxy, "CONNECT a\tb:80 HTTP/1.1\r\n\r\n", "HTTP/1.1 400 Bad Request", BadRequest},
	} {
		heard := r.ask(c.at, c.say)
		ev := r.event()
		if c.at == proxy && !strings.HasPrefix(heard, c.want) || c.at == socks && heard != c.want || ev.Reason != c.reason || ev.Err == nil {
			t.Errorf("%s: heard %q, want %q; %s: %v", name, heard, c.want, ev.Reason, ev.Err)
		}
		if c.at == proxy && !strings.Contains(heard, fmt.Sprintf("details=%q", c.reason)) {
			t.Errorf("%s: no reason in %q", name, heard)
		}
	}
}

// TestHTTPClient: the one of Go's library, and its error.
func TestHTTPClient(t *testing.T) {
	r := newRig(t)
	app := r.app(func(c net.Conn) {
		if request, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s", request.Host)
		}
	})
	r.in(r.enforcer("httpbin"), app, Port{}, mode("STRICT"))
	proxy, socks := r.front(r.enforcer("sleep"), HTTPProxy), r.front(r.enforcer("sleep"), SOCKS)
	transport := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "socks5", Host: socks.String()}), DisableKeepAlives: true}
	response, err := (&http.Client{Transport: transport, Timeout: deadline}).Get("http://httpbin.default:8000/")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if body, err := io.ReadAll(response.Body); err != nil || string(body) != "httpbin.default:8000" {
		t.Errorf("%q, %v", body, err)
	}
	c := r.dial(proxy)
	fmt.Fprintf(c, "CONNECT httpbin.default:8000 HTTP/1.1\r\nHost: httpbin.default:8000\r\nProxy-Connection: keep-alive\r\nUser-Agent: x\r\n\r\nGET / HTTP/1.1\r\nHost: within\r\n\r\n")
	heard, err := io.ReadAll(c)
	if want := "HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.1 200 OK\r\nConnection: close\r\n\r\nwithin"; err != nil || string(heard) != want {
		t.Errorf("heard %q, %v", heard, err)
	}
}

// TestSlowFronts: who does not say in time where to go is not waited for.
func TestSlowFronts(t *testing.T) {
	for name, front := range map[string]Front{"SOCKS": SOCKS, "CONNECT": HTTPProxy} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.limits.Header = 50 * time.Millisecond
			c := r.dial(r.front(r.enforcer("sleep"), front))
			if _, err := io.WriteString(c, map[string]string{"SOCKS": "\x05\x01", "CONNECT": "CONNECT a:80"}[name]); err != nil {
				t.Fatal(err)
			}
			if e := r.event(); e.Reason != Slow || e.Direction != Outbound {
				t.Errorf("%+v", e)
			}
			heard, _ := io.ReadAll(c) // it ends
			if want := map[string]string{"CONNECT": "HTTP/1.1 408 Request Timeout"}[name]; !strings.HasPrefix(string(heard), want) {
				t.Errorf("heard %q, want %q", heard, want)
			}
		})
	}
}

// TestCircle: a connection of the agent's own that a redirect brings back is refused,
// and those that have ended are not taken for it.
func TestCircle(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	r.say(netip.MustParseAddrPort("10.0.0.1:80"), "")
	e := r.enforcer("sleep")
	at := r.front(e, FixedTo(Target{Addr: app.Addr(), Port: app.Port()}))
	lasting := r.dial(at)
	_, _ = io.WriteString(lasting, "x")
	if _, err := io.ReadFull(lasting, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	var own []ends
	e.dialled.Range(func(between, _ any) bool { own = append(own, between.(ends)); return true })
	if len(own) != 1 || own[0].to != app {
		t.Fatalf("known are %v", own)
	}
	for to, want := range map[netip.AddrPort]Reason{at: Loop, app: ReasonNone} { // the kernel gives one port for several destinations
		from := r.listen(func(_ context.Context, l net.Listener) error { return l.Close() }) // free again
		e.dialled.Store(ends{from, to}, nil)                                                 // as if the agent had opened it
		var c net.Conn
		waitFor(t, func() bool {
			var err error
			c, err = (&net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)}).Dial("tcp", at.String())
			return err == nil
		})
		defer c.Close()
		if heard := ask(c, "hello"); (heard == "reset") != (want == Loop) {
			t.Errorf("%s: heard %q", to, heard)
		}
		if e := r.event(); e.Reason != want || strings.Contains(e.Fix, "--exclude-uids") != (want == Loop) {
			t.Errorf("%s: %+v", to, e)
		}
		e.dialled.Delete(ends{from, to})
	}
	_ = lasting.CloseWrite()
	r.event()
	e.dialled.Range(func(from, _ any) bool { t.Errorf("%v is known after its end", from); return true })
}

// TestLeads: an address leads to a listener of the agent's own if that is where the
// kernel would go.
func TestLeads(t *testing.T) {
	e := newRig(t).enforcer("sleep")
	for _, at := range []string{"127.0.0.1:1", "0.0.0.0:2", "[::]:3"} {
		e.listeners.Store(netip.MustParseAddrPort(at), (*Port)(nil))
	}
	for address, want := range map[string]Direction{
		"127.0.0.1:1": Outbound, "0.0.0.0:1": Outbound, "[::ffff:127.0.0.1]:1": Outbound, "127.0.0.2:1": "", "[::1]:1": "", "[::]:1": "",
		"127.0.0.1:2": Outbound, "127.0.0.2:2": Outbound, "0.0.0.0:2": Outbound, "[::1]:2": "", "[::]:2": "", "192.0.2.1:2": "",
		"127.0.0.1:3": Outbound, "[::1]:3": Outbound, "[::]:3": Outbound, "[2001:db8::1]:3": "", "127.0.0.1:4": "", "name:1": "",
	} {
		if got := e.leads(address); got != want {
			t.Errorf("%s: %q", address, got)
		}
	}
}

// TestLoops: a listener that leads to itself is refused, however it gets there.
func TestLoops(t *testing.T) {
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::]:0"} {
		r := newRig(t)
		r.say(netip.MustParseAddrPort("10.0.0.1:80"), "")
		l, err := net.Listen("tcp", listen)
		if err != nil {
			t.Fatal(err)
		}
		port := addrPort(l.Addr()).Port()
		at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
		e := r.enforcer("sleep")
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- e.Outbound(ctx, l, FixedTo(Target{Addr: at.Addr(), Port: port})) }()
		if heard := r.ask(at, "hello"); heard != "reset" {
			t.Errorf("%s: heard %q", listen, heard)
		}
		if e := r.event(); e.Reason != Loop {
			t.Errorf("%s: %+v", listen, e)
		}
		if heard := r.ask(r.front(e, FixedTo(Target{Host: "localhost", Port: port})), "hello"); heard != "reset" {
			t.Errorf("%s, by name: heard %q", listen, heard)
		}
		if e := r.event(); e.Reason != Loop || len(r.events) > 0 { // not one connection came of it
			t.Errorf("%s, by name: %+v, and %d more", listen, e, len(r.events))
		}
		if heard := r.ask(r.front(e, SOCKS), asked("localhost", port, "hello")); heard != agreed+refusal(replyFailure) {
			t.Errorf("%s, by SOCKS: heard %q", listen, heard)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
