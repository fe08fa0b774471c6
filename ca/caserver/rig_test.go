package caserver

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

var sleep = spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")

// rig is a server on a real socket, below a root with an intermediate.
type rig struct {
	t      *testing.T
	issuer *catest.Issuer // the signer
	server *Server
	addr   string
	stop   func()

	mu    sync.Mutex
	calls []Call // guarded by mu
}

// words is an authenticator whose tokens are words.
type words map[string]func() (authn.Identity, error)

func (words) Kind() string { return "word" }

func (w words) Authenticate(_ context.Context, _ time.Time, r authn.Request) (authn.Identity, error) {
	if r.Bearer == "" {
		return authn.Identity{}, authn.ErrNoProof
	}
	answer, ok := w[r.Bearer]
	if !ok {
		return authn.Identity{}, errors.New("the word is wrong")
	}
	return answer()
}

func newRig(t *testing.T, edits ...func(*Settings)) *rig {
	t.Helper()
	now := time.Now()
	r := &rig{t: t, issuer: catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: "signer"})}
	authority := catest.Authority(t, now, ca.Config{Signer: r.issuer.Signer(t, now)})
	own := &OwnCertificate{Authority: authority, ID: spiffeid.RequireFromString("spiffe://cluster.local/ns/istio-system/sa/citadel"), DNSNames: []string{"istio-citadel"}}
	set := Settings{Authority: authority, Certificate: own.ForHandshake, Observe: r.observe, RenewExpiredFor: time.Hour,
		Authenticators: authn.Chain{authn.ClientCertificate{RenewExpiredFor: time.Hour}, words{
			"node": func() (authn.Identity, error) {
				return authn.Identity{Caller: ca.NewCaller(spiffeid.RequireFromString("spiffe://cluster.local/ns/istio-system/sa/ztunnel"), "word", ""),
					Pod: authn.Pod{Namespace: "istio-system", Name: "ztunnel-x", UID: "1"}}, nil
			},
			"down": func() (authn.Identity, error) {
				return authn.Identity{}, &authn.Unavailable{Err: errors.New("secret cause")}
			},
			"no right": func() (authn.Identity, error) {
				return authn.Identity{}, &authn.Unavailable{Err: fmt.Errorf("%w: secret cause", authn.ErrMayNotReview)}
			},
			"panic": func() (authn.Identity, error) { panic("at the word") },
		}}}
	for _, edit := range edits {
		edit(&set)
	}
	var err error
	if r.server, err = New(set); err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.addr = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.server.Serve(ctx, listener, time.Second) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

func (r *rig) observe(c Call) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.calls = append(r.calls, c)
}

func (r *rig) last() Call {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.calls) == 0 {
		r.t.Fatal("no call was observed")
	}
	return r.calls[len(r.calls)-1]
}

// config is a client's, with a certificate or without.
func (r *rig) config(client *catest.Issuer) *tls.Config {
	cfg := &tls.Config{RootCAs: trust.Pool([]*x509.Certificate{r.issuer.Root().Cert}), ServerName: "istio-citadel", MinVersion: tls.VersionTLS12}
	if client != nil {
		cert := tls.Certificate{PrivateKey: client.Key}
		for _, c := range client.Chain() {
			cert.Certificate = append(cert.Certificate, c.Raw)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return cfg
}

func (r *rig) dial(client *catest.Issuer) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient("passthrough:"+r.addr, grpc.WithTransportCredentials(credentials.NewTLS(r.config(client))))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// client is a workload's certificate of an hour.
func (r *rig) client(edits ...func(*x509.Certificate)) *catest.Issuer {
	return r.issuer.Leaf(r.t, time.Now(), sleep, edits...)
}

func aged(notAfter time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.NotAfter = time.Now().Add(notAfter)
		c.NotBefore = c.NotAfter.Add(-time.Hour / 2)
	}
}
