package enforce

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca/catest"
	"citadel/ca/policy"
	"citadel/nodeagent/certdir"
)

// deadline is for what surely comes, on however slow a machine.
const deadline = 30 * time.Second

var domain = spiffeid.RequireTrustDomainFromString("cluster.local")

// rig is a mesh of one process: a root, a policy, and Enforcers on loopback.
type rig struct {
	t      *testing.T
	root   *catest.Issuer
	policy atomic.Pointer[policy.Snapshot]
	events chan Event
	limits Limits
}

func newRig(t *testing.T) *rig {
	limits := DefaultLimits
	limits.Header, limits.Dial, limits.Drain = deadline, deadline, deadline
	return &rig{t: t, root: catest.Root(t, time.Now(), catest.Spec{Name: "root"}), events: make(chan Event, 1000), limits: limits}
}

// account is the SPIFFE ID of a service account of namespace default.
func account(name string) spiffeid.ID {
	return spiffeid.RequireFromSegments(domain, "ns", "default", "sa", name)
}

// set is what a node agent installs.
func (r *rig) set(issuer *catest.Issuer, id spiffeid.ID, edits ...func(*x509.Certificate)) certdir.Set {
	leaf := issuer.Leaf(r.t, time.Now(), id, edits...)
	return certdir.Set{
		SVID:  &x509svid.SVID{ID: id, Certificates: leaf.Chain(), PrivateKey: leaf.Key},
		Roots: x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{r.root.Cert}),
	}
}

// pair is the certificate of a client of the mesh.
func (r *rig) pair(issuer *catest.Issuer, edits ...func(*x509.Certificate)) tls.Certificate {
	set := r.set(issuer, account("sleep"), edits...)
	cert := tls.Certificate{PrivateKey: set.SVID.PrivateKey}
	for _, c := range set.SVID.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// enforcer is one of a host with an account.
func (r *rig) enforcer(name string, edits ...func(*Settings)) *Enforcer {
	s := Settings{Credentials: &Credentials{}, Policy: r.policy.Load, Observe: func(e Event) { r.events <- e }, Rules: Rules{Limits: r.limits}}
	if name != "" {
		if err := s.Credentials.Install(r.set(r.root, account(name))); err != nil {
			r.t.Fatal(err)
		}
	}
	for _, edit := range edits {
		edit(&s)
	}
	return New(s)
}

// listen serves until the test ends.
func (r *rig) listen(serve func(context.Context, net.Listener) error) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l) }()
	r.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	})
	return addrPort(l.Addr())
}

// app is an application: each of its connections is handled, then closed.
func (r *rig) app(handle func(net.Conn)) netip.AddrPort {
	return r.listen(func(ctx context.Context, l net.Listener) error {
		stop := context.AfterFunc(ctx, func() { l.Close() })
		defer stop()
		for {
			c, err := l.Accept()
			if err != nil {
				return nil
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	})
}

// echo says back what it hears.
func echo(c net.Conn) { _, _ = io.Copy(c, c) }

// in serves an application behind an Enforcer, with a policy by which that is
// httpbin.default:8000 of the mesh.
func (r *rig) in(e *Enforcer, app netip.AddrPort, p Port, objects string) netip.AddrPort {
	p.App = app.String()
	at := r.listen(func(ctx context.Context, l net.Listener) error { return e.Inbound(ctx, l, p) })
	r.say(at, objects)
	return at
}

// say is a policy in which httpbin.default:8000 is served at an address.
func (r *rig) say(at netip.AddrPort, objects string) {
	r.t.Helper()
	all, err := policy.Decode("mesh", []byte(fmt.Sprintf(`
{apiVersion: v1, kind: Service, metadata: {name: httpbin, namespace: default}, spec: {clusterIP: 10.96.0.7, selector: {app: httpbin}, ports: [{name: http, port: 8000, targetPort: %d}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: httpbin-0, namespace: default, labels: {app: httpbin, security.istio.io/tlsMode: istio}},
 spec: {serviceAccountName: httpbin, containers: [{name: istio-proxy}]}, status: {podIP: %s}}
---
%s`, at.Port(), at.Addr(), objects)))
	if err != nil {
		r.t.Fatal(err)
	}
	r.policy.Store(policy.New(policy.Auto, all...))
}

func mode(m string) string {
	return "{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: default, namespace: istio-system}, spec: {mtls: {mode: " + m + "}}}"
}

// event is the next that is told.
func (r *rig) event() Event {
	r.t.Helper()
	select {
	case e := <-r.events:
		return e
	case <-time.After(deadline):
		r.t.Fatal("no event")
		return Event{}
	}
}

func (r *rig) dial(at netip.AddrPort) *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(deadline))
	return c.(*net.TCPConn)
}

// ask connects first; a connection that is cut at once is one that is reset.
func (r *rig) ask(at netip.AddrPort, say string) string {
	r.t.Helper()
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return broke(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deadline))
	return ask(c, say)
}

// hold says something, and waits for what becomes of it.
func (r *rig) hold(at netip.AddrPort, say string) string {
	c, err := net.Dial("tcp", at.String())
	if err != nil {
		return broke(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deadline))
	if _, err := io.WriteString(c, say); err != nil { // of which no read hears again
		return broke(err)
	}
	heard, err := io.ReadAll(c)
	if err != nil {
		return broke(err)
	}
	return string(heard)
}

// ask says something and returns all that is said back, or in a word how the
// connection broke.
func ask(c net.Conn, say string) string {
	if _, err := io.WriteString(c, say); err != nil {
		return broke(err)
	}
	if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		return broke(err)
	}
	heard, err := io.ReadAll(c)
	if err != nil {
		return broke(err)
	}
	return string(heard)
}

func broke(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE), errors.Is(err, syscall.ENOTCONN):
		return "reset"
	case strings.Contains(err.Error(), "tls:"):
		return "tls"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "cut"
	}
	return err.Error()
}
