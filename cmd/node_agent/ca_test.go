package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/caclient"
	"citadel/ca/caserver"
	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
	"citadel/nodeagent"
	auth "citadel/proto/istio/v1/auth"
)

// joinTokens are a citadel's in memory.
type joinTokens struct {
	mu  sync.Mutex
	all map[string]*authn.JoinToken // guarded by mu
}

func (j *joinTokens) Use(_ context.Context, id string, use func(*authn.JoinToken) (bool, error)) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if token := j.all[id]; token != nil {
		_, err := use(token)
		return err
	}
	return authn.ErrNoJoinToken
}

// citadel is one on a real socket.
type citadel struct {
	t         *testing.T
	address   string
	root      *catest.Issuer
	authority *ca.Authority
	serving   *tls.Certificate
	tokens    joinTokens
}

// newCitadel makes one whose clock is later than ours, and has it serve.
func newCitadel(t *testing.T, later time.Duration) *citadel {
	t.Helper()
	now := time.Now().Add(later)
	c := &citadel{t: t, root: catest.Root(t, now, catest.Spec{Name: "root of " + time.Now().Format(time.StampNano)}), tokens: joinTokens{all: map[string]*authn.JoinToken{}}}
	c.authority = catest.Authority(t, now, ca.Config{Signer: c.root.Signer(t, now)})
	own := &caserver.OwnCertificate{Authority: c.authority, ID: web, DNSNames: []string{caclient.DefaultServerName}}
	var err error
	if c.serving, err = own.Certificate(now); err != nil {
		t.Fatal(err)
	}
	server, err := caserver.New(caserver.Settings{Authority: c.authority, RenewExpiredFor: time.Hour,
		Authenticators: authn.Chain{authn.ClientCertificate{RenewExpiredFor: time.Hour}, authn.Join{TrustDomain: web.TrustDomain(), Tokens: &c.tokens, Lookups: authn.NewLookups(1_000_000)}},
		Certificate:    func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return c.serving, nil }})
	if err != nil {
		t.Fatal(err)
	}
	listener := listen(t)
	c.address = listener.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(ctx, listener, time.Second) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return c
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return listener
}

// join is a token of c's, made at now, for an hour and one host.
func (c *citadel) join(t *testing.T, now time.Time) caclient.Join {
	t.Helper()
	token, bearer, err := authn.NewJoinToken(now, "vm", "web", time.Hour, 1)
	if err != nil {
		t.Fatal(err)
	}
	c.tokens.mu.Lock()
	defer c.tokens.mu.Unlock()
	c.tokens.all[token.ID] = &token
	return caclient.Join{Address: c.address, Fingerprints: []string{caclient.Fingerprint(c.root.Cert)}, Bearer: bearer}
}

// issue makes a certificate for a key, past every check; the edits change it.
func issue(c *citadel, key any, edits ...func(*x509.Certificate)) string {
	serial, err := trust.NewSerial()
	if err != nil {
		c.t.Error(err)
	}
	template := &x509.Certificate{SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{web.URL()},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, edit := range edits {
		edit(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.root.Cert, key, c.root.Key)
	if err != nil {
		c.t.Error(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// answer is a certificate in a citadel's answer.
func answer(c *citadel, leaf string) []string { return []string{leaf, string(c.root.PEM())} }

// liar answers as c's server does, with whatever answer says.
type liar struct {
	auth.UnimplementedIstioCertificateServiceServer
	answer func(csr *x509.CertificateRequest) []string
}

func (l liar) CreateCertificate(_ context.Context, r *auth.IstioCertificateRequest) (*auth.IstioCertificateResponse, error) {
	block, _ := pem.Decode([]byte(r.GetCsr()))
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, err
	}
	return &auth.IstioCertificateResponse{CertChain: l.answer(csr)}, nil
}

// lies serves at another address, and returns it.
func (c *citadel) lies(t *testing.T, answer func(*x509.CertificateRequest) []string) string {
	t.Helper()
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{*c.serving}, ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12})))
	auth.RegisterIstioCertificateServiceServer(server, liar{answer: answer})
	listener := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// host is where an agent of this process runs.
type host struct {
	t   *testing.T
	dir string
}

func newHost(t *testing.T) *host { return &host{t, t.TempDir()} }

func (h *host) path(name string) string { return filepath.Join(h.dir, name) }

func (h *host) write(name string, text []byte) string {
	h.t.Helper()
	if err := os.WriteFile(h.path(name), text, 0o600); err != nil {
		h.t.Fatal(err)
	}
	return h.path(name)
}

var setNames = []string{"key.pem", "cert-chain.pem", "root-cert.pem"}

// holds puts a certificate of c's there, which is due.
func (h *host) holds(c *citadel) {
	h.t.Helper()
	set := madeAt(h.t, c.root, time.Now().Add(-40*time.Minute))
	key, err := trust.MarshalKey(set.SVID.PrivateKey)
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("key.pem", key)
	h.write("cert-chain.pem", trust.MarshalCertificates(set.SVID.Certificates))
	h.write("root-cert.pem", c.root.PEM())
}

// shows is what the three files hold.
func (h *host) shows() (all [3]string) {
	for i, name := range setNames {
		text, err := os.ReadFile(h.path(name))
		if err != nil {
			text = []byte(err.Error())
		}
		all[i] = string(text)
	}
	return all
}

// flags are an agent's on h.
func (h *host) flags(more ...string) []string {
	return append([]string{"--monitoring-port=0", "--control-socket=" + h.path("control.sock"), "--state-dir=" + h.path("state"), "--workload-cert-ttl=1h",
		"--key=" + h.path("key.pem"), "--cert-chain=" + h.path("cert-chain.pem"), "--root-cert=" + h.path("root-cert.pem")}, more...)
}

// runs an agent until its log has a text, asks for its status, and stops it.
func (h *host) runs(until string, flags ...string) (log string, s nodeagent.Status) {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	defer cancel()
	stderr := waits(until)
	ended := make(chan int, 1)
	go func() { ended <- run(ctx, h.flags(flags...), &output{}, stderr) }()
	select {
	case <-stderr.seen:
	case code := <-ended:
		h.t.Fatalf("ended with code %d: %s", code, stderr)
	case <-time.After(20 * time.Second):
		h.t.Fatalf("the log has no %q: %s", until, stderr)
	}
	var stdout output
	_ = run(ctx, []string{"status", "-o", "json", "--control-socket", h.path("control.sock")}, &stdout, &output{}) // its code is of other tests
	if err := json.Unmarshal([]byte(stdout.String()), &s); err != nil {
		h.t.Errorf("status: %v: %s", err, stdout.String())
	}
	cancel()
	if code := <-ended; code != daemon.ExitOK {
		h.t.Errorf("ended with code %d: %s", code, stderr)
	}
	return stderr.String(), s
}

// make puts a file of the agent's own there, past what it checks.
func (s state) make(t *testing.T, name, text string) {
	t.Helper()
	if err := s.write(name, []byte(text)); err != nil {
		t.Fatal(err)
	}
}
