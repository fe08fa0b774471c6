package enforce

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"syscall"
	"testing"
	"time"
)

// unheard has nobody told of what becomes of connections.
func unheard(s *Settings) { s.Observe = func(Event) {} }

// between are the ways that leave bytes as they were: through one agent, and
// through two.
var between = map[string]func(*rig, netip.AddrPort) netip.AddrPort{
	"one agent, plain": func(r *rig, app netip.AddrPort) netip.AddrPort {
		return r.in(r.enforcer("httpbin", unheard), app, Port{}, mode("DISABLE"))
	},
	"two agents, mTLS": func(r *rig, app netip.AddrPort) netip.AddrPort {
		r.in(r.enforcer("httpbin", unheard), app, Port{}, mode("STRICT"))
		return r.out(r.enforcer("sleep", unheard), httpbin)
	},
}

// hears is what a client has heard when its connection is over, however that ends.
func (r *rig) hears(at netip.AddrPort, say func(*net.TCPConn)) []byte {
	c := r.dial(at)
	defer c.Close()
	said := make(chan struct{})
	go func() { defer close(said); say(c) }()
	heard, _ := io.ReadAll(c)
	c.Close()
	<-said
	return heard
}

// TestEarlyAnswer: an application may answer before it has read all, and close: the
// kernel resets such a connection, behind the answer.
func TestEarlyAnswer(t *testing.T) {
	answer := append([]byte("HTTP/1.1 413 Content Too Large\r\n\r\n"), bytes.Repeat([]byte("x"), 2000)...)
	early := func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 100_000))
		_, _ = c.Write(answer)
	}
	halfway := func(c net.Conn) {
		_, _ = io.ReadFull(c, make([]byte, 5))
		_, _ = c.Write(answer)
	}
	for way, through := range between {
		t.Run(way, func(t *testing.T) {
			r := newRig(t)
			at := through(r, r.app(early))
			for i := range 20 {
				if heard := r.hears(at, func(c *net.TCPConn) { _, _ = io.Copy(c, io.LimitReader(zeroes{}, 20_000_000)) }); !bytes.Equal(heard, answer) {
					t.Errorf("round %d, while the client speaks: %d of %d bytes of the answer", i, len(heard), len(answer))
				}
			}
			r = newRig(t)
			at = through(r, r.app(halfway))
			for i := range 20 {
				if heard := r.hears(at, func(c *net.TCPConn) { _, _ = c.Write(make([]byte, 10)); _ = c.CloseWrite() }); !bytes.Equal(heard, answer) {
					t.Errorf("round %d, the client has ended: %d of %d bytes of the answer", i, len(heard), len(answer))
				}
			}
		})
	}
}

// reads is a connection whose reads come when they are let.
type reads struct {
	*socket
	before func()
}

func (r reads) Read(b []byte) (int, error) { r.before(); return r.socket.Read(b) }

// ends are those of a connection of TCP.
func (r *rig) ends() (here, there *net.TCPConn) {
	taken := make(chan *net.TCPConn, 1)
	at := r.listen(func(_ context.Context, l net.Listener) error {
		defer l.Close()
		c, err := l.Accept()
		if err == nil {
			taken <- c.(*net.TCPConn)
		}
		return err
	})
	here = r.dial(at)
	there = <-taken
	r.t.Cleanup(func() { there.Close() })
	return here, there
}

// TestLastWord: a side that can be told nothing any more may have answered: that is
// read, though the client's end, or its next word, failed to arrive before.
func TestLastWord(t *testing.T) {
	for name, then := range map[string]func(*net.TCPConn){
		"the client ends":   func(c *net.TCPConn) { _ = c.CloseWrite() },
		"the client speaks": func(c *net.TCPConn) { _, _ = io.WriteString(c, "more") },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			client, a := r.ends()
			b, app := r.ends()
			_, _ = io.WriteString(b, "unread")
			_, _ = io.WriteString(app, "answer")
			app.Close() // a reset, with the answer before it
			waitFor(t, func() bool { return b.CloseWrite() != nil })
			heard := make(chan struct{})
			front := reads{&socket{TCPConn: a}, func() {}}
			back := reads{&socket{TCPConn: b}, func() { <-heard; <-time.After(50 * time.Millisecond) }}
			front.before = func() {
				select {
				case <-heard:
				default:
					close(heard)
				}
			}
			then(client)
			over := make(chan struct{})
			go func() {
				defer close(over)
				_, _, _ = relay(t.Context(), side{front, front.socket}, side{back, back.socket})
			}()
			if all, _ := io.ReadAll(client); string(all) != "answer" {
				t.Errorf("heard %q", all)
			}
			<-over
		})
	}
}

// TestPermissiveIsFaithful: PERMISSIVE adds nothing to plain connections and takes
// nothing from them, whoever speaks first, ends first, or cuts.
func TestPermissiveIsFaithful(t *testing.T) {
	banner := func(c net.Conn) {
		if all, err := io.ReadAll(c); err == nil && len(all) == 0 {
			_, _ = io.WriteString(c, "220 banner")
		}
	}
	for _, c := range []struct {
		name   string
		late   bool // the client is waited for no more when it does something
		app    func(net.Conn)
		client func(net.Conn) string
		want   string
		reason Reason
	}{
		{"ends first", false, banner, func(c net.Conn) string { return ask(c, "") }, "220 banner", ReasonNone},
		{"ends late", true, banner, func(c net.Conn) string { return ask(c, "") }, "220 banner", ReasonNone},
		{"a handshake that is none", false, echo, func(c net.Conn) string { return ask(c, "\x16\x03\x01") }, "\x16\x03\x01", ReasonNone},
		{"a late handshake that is none", true, echo, func(c net.Conn) string { return ask(c, "\x16\x03\x01") }, "\x16\x03\x01", ReasonNone},
		{"the application cuts who is silent", true, func(c net.Conn) { reset(c.(*net.TCPConn)) }, listens, "reset", PeerReset},
		{"the application ends, the client silent", true, func(net.Conn) {}, listens, "", ReasonNone},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			r.limits.ServerFirst = deadline
			if c.late {
				r.limits.ServerFirst = time.Millisecond
			}
			begin := make(chan struct{})
			app := r.app(func(conn net.Conn) { <-begin; c.app(conn) })
			e := r.enforcer("httpbin")
			client := r.dial(r.in(e, app, Port{}, mode("PERMISSIVE")))
			if c.late {
				waitFor(t, func() (connected bool) {
					e.dialled.Range(func(any, any) bool { connected = true; return false })
					return connected
				})
			}
			close(begin)
			if heard := c.client(client); heard != c.want {
				t.Errorf("heard %q, want %q", heard, c.want)
			}
			client.Close()
			if e := r.event(); e.Reason != c.reason || e.Reason == ReasonNone && e.Way != WayPlain {
				t.Errorf("%+v", e)
			}
		})
	}
}

// listens says nothing.
func listens(c net.Conn) string {
	heard, err := io.ReadAll(c)
	if err != nil {
		return broke(err)
	}
	return string(heard)
}

// TestHealthCheckIsTold: an application that is told of its clients by a PROXY
// header is told of who checks it, too: without one it would answer nobody.
func TestHealthCheckIsTold(t *testing.T) {
	r := newRig(t)
	told := make(chan []byte, 1)
	app := r.app(func(c net.Conn) {
		head := make([]byte, 16) // the PROXY protocol, 2.2
		if _, err := io.ReadFull(c, head); err != nil || string(head[:12]) != "\r\n\r\n\x00\r\nQUIT\n" {
			told <- head
			return
		}
		from := make([]byte, binary.BigEndian.Uint16(head[14:]))
		_, _ = io.ReadFull(c, from)
		if request, err := http.ReadRequest(bufio.NewReader(c)); err != nil || request.Method != "GET" || request.RequestURI != "/healthz" {
			t.Errorf("behind the header: %+v, %v", request, err)
		}
		told <- from
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	e := r.enforcer("httpbin")
	at := r.in(e, app, Port{ProxyProtocol: true}, mode("STRICT"))
	e.Rule(Rules{Limits: r.limits, HealthChecks: []HealthCheck{{From: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Port: at.Port(), Path: "/healthz"}}})
	c := r.dial(at)
	from := localOf(c)
	want := binary.BigEndian.AppendUint16(append(from.Addr().AsSlice(), at.Addr().AsSlice()...), from.Port())
	want = binary.BigEndian.AppendUint16(want, at.Port())
	if heard := ask(c, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"); !bytes.HasSuffix([]byte(heard), []byte("ok")) {
		t.Errorf("the check heard %q", heard)
	}
	if got := <-told; !bytes.Equal(got, want) {
		t.Errorf("the application was told %q, want %q", got, want)
	}
	if e := r.event(); e.Way != WayHealth || e.Reason != ReasonNone {
		t.Errorf("%+v", e)
	}
}

// TestNameThatSpellsAnID: a SPIFFE ID is a URI SAN, X509-SVID 2: one that is spelt as
// a host name proves nothing, and host names that a rule names do.
func TestNameThatSpellsAnID(t *testing.T) {
	for _, c := range []struct{ name, san, rule, want string }{
		{"the ID of another", account("httpbin").String(), "", "reset"},
		{"the ID of another, whom the rule names", account("db").String(), "{mode: ISTIO_MUTUAL, subjectAltNames: [\"" + account("db").String() + "\"]}", "reset"},
		{"a host name that the rule names", "db.example", "{mode: ISTIO_MUTUAL, subjectAltNames: [db.example]}", "hello"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			server := r.enforcer("", unheard)
			if err := server.Credentials.Install(r.set(r.root, account("thief"), func(x *x509.Certificate) { x.DNSNames = []string{c.san} })); err != nil {
				t.Fatal(err)
			}
			objects := mode("STRICT")
			if c.rule != "" {
				objects += "\n" + rule("httpbin", c.rule)
			}
			r.in(server, r.app(echo), Port{Host: "httpbin.default.svc.cluster.local", ServicePort: 8000}, objects)
			if heard := r.ask(r.out(r.enforcer("sleep"), httpbin), "hello"); heard != c.want {
				t.Errorf("heard %q, want %q", heard, c.want)
			}
			if e := r.event(); (e.Reason == WrongIdentity) != (c.want == "reset") {
				t.Errorf("%+v", e)
			}
		})
	}
}

// TestOwnSIMPLE: TLS that a rule demands is the application's own, and is opened to
// this host, too, where mTLS of the mesh would be the agent talking to itself.
func TestOwnSIMPLE(t *testing.T) {
	r := newRig(t)
	first := make(chan byte, 1)
	app := r.app(func(c net.Conn) {
		b := make([]byte, 1)
		_, _ = io.ReadFull(c, b)
		first <- b[0]
	})
	r.say(app, mode("DISABLE")+"\n"+rule("httpbin", "{mode: SIMPLE, insecureSkipVerify: true}"))
	here := func(s *Settings) { s.Addresses = func() []netip.Addr { return []netip.Addr{app.Addr()} } }
	r.ask(r.out(r.enforcer("sleep", here), httpbin), "GET / HTTP/1.1\r\n\r\n")
	if b := <-first; b != firstOfTLS {
		t.Errorf("the first byte is %#x", b)
	}
	if e := r.event(); e.Way == WayPlain || e.Mode != "SIMPLE" {
		t.Errorf("%+v", e)
	}
}

// TestResetIsNoEnd: the kernel tells of a reset once. Where the one who writes has
// heard of it, the one who reads takes it for no end.
func TestResetIsNoEnd(t *testing.T) {
	r := newRig(t)
	connected := make(chan struct{})
	from := plainSide(r.dial(r.app(func(c net.Conn) { <-connected; reset(c.(*net.TCPConn)) })))
	close(connected)
	heard := make(chan error, 1)
	to := plainSide(r.dial(r.app(func(c net.Conn) { _, err := io.ReadAll(c); heard <- err })))
	waitFor(t, func() bool {
		_, err := from.Write([]byte("x"))
		return errors.Is(err, syscall.ECONNRESET)
	})
	if err := newFlow(to, from, func() {}).carry(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("carried to its end: %v", err)
	}
	reset(to.tcp)
	if err := <-heard; err == nil {
		t.Error("the other side was told of an end")
	}
}
