package caclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/caserver"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

var web = spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/web")

type rig struct {
	t      *testing.T
	issuer *catest.Issuer
	server *caserver.Server
	addr   string
}

type word struct{}

func (word) Kind() string { return "word" }

func (word) Authenticate(_ context.Context, _ time.Time, r authn.Request) (authn.Identity, error) {
	switch r.Bearer {
	case "":
		return authn.Identity{}, authn.ErrNoProof
	case "good":
		return authn.Identity{Caller: ca.NewCaller(web, "word", "")}, nil
	case "down":
		return authn.Identity{}, &authn.Unavailable{Err: errors.New("x")}
	}
	return authn.Identity{}, errors.New("the word is wrong")
}

// newRig is a Citadel on a real socket, as of now and later.
func newRig(t *testing.T, later time.Duration) *rig {
	t.Helper()
	now := time.Now().Add(later)
	r := &rig{t: t, issuer: catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: "signer"})}
	authority := catest.Authority(t, now, ca.Config{Signer: r.issuer.Signer(t, now)})
	own := &caserver.OwnCertificate{Authority: authority, ID: web, DNSNames: []string{"istio-citadel", "ca.example"}}
	cert, err := own.Certificate(now)
	if err != nil {
		t.Fatal(err)
	}
	r.server, err = caserver.New(caserver.Settings{Authority: authority, Authenticators: authn.Chain{authn.ClientCertificate{RenewExpiredFor: time.Hour}, word{}},
		RenewExpiredFor: time.Hour, Certificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert, nil },
		Limits: caserver.Limits{PerCaller: 0.01, PerCallerBurst: 3}})
	if err != nil {
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
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return r
}

func (r *rig) config() Config {
	return Config{Address: r.addr, Roots: []*x509.Certificate{r.issuer.Root().Cert}, Token: "good"}
}

func (r *rig) client(cfg Config) *Client {
	r.t.Helper()
	c, err := New(cfg)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = c.Close() })
	return c
}

func csr(t *testing.T) []byte { return catest.CSR(t, catest.Key(t, trust.ECDSAP256, "requested")) }

func TestSign(t *testing.T) {
	r := newRig(t, 0)
	leaf := r.issuer.Leaf(t, time.Now().Add(-90*time.Minute), web) // expired half an hour ago
	shown := &tls.Certificate{PrivateKey: leaf.Key}
	for _, cert := range leaf.Chain() {
		shown.Certificate = append(shown.Certificate, cert.Raw)
	}
	for name, edit := range map[string]func(*Config){
		"by token":                  func(*Config) {},
		"by expired certificate":    func(c *Config) { c.Token, c.Certificate = "", shown },
		"by fingerprint":            func(c *Config) { c.Roots, c.Fingerprints = nil, []string{Fingerprint(r.issuer.Root().Cert)} },
		"of another name of the CA": func(c *Config) { c.ServerName = "ca.example" },
	} {
		t.Run(name, func(t *testing.T) {
			cfg := r.config()
			edit(&cfg)
			issued, err := r.client(cfg).Sign(t.Context(), csr(t), time.Hour)
			if err != nil {
				t.Fatal(err)
			}
			if len(issued.Chain) != 2 || issued.Chain[0].URIs[0].String() != web.String() || len(issued.Roots) != 1 || !issued.Roots[0].Equal(r.issuer.Root().Cert) {
				t.Errorf("%+v", issued)
			}
			if life := time.Until(issued.Chain[0].NotAfter).Round(time.Minute); life != time.Hour || !issued.RenewBy.IsZero() {
				t.Errorf("life %s, renew by %s", life, issued.RenewBy)
			}
		})
	}
}

func TestErrorsSayWhatCanBeDone(t *testing.T) {
	r := newRig(t, 0)
	foreign := catest.Root(t, time.Now(), catest.Spec{Name: "foreign"})
	for name, c := range map[string]struct {
		edit func(*Config)
		ttl  time.Duration
		kind Kind
		text string
	}{
		"nobody there":      {func(c *Config) { c.Address = "127.0.0.1:1" }, 0, Unreachable, "connection refused"},
		"no such name":      {func(c *Config) { c.Address = "nowhere.invalid:8060" }, 0, Unreachable, "nowhere.invalid"},
		"other roots":       {func(c *Config) { c.Roots = []*x509.Certificate{foreign.Cert} }, 0, NotTheCA, "the server is not the CA that is trusted here: x509: certificate signed by unknown authority"},
		"other fingerprint": {func(c *Config) { c.Roots, c.Fingerprints = nil, []string{Fingerprint(foreign.Cert)} }, 0, NotTheCA, "not the one of the fingerprint " + Fingerprint(foreign.Cert)},
		"fingerprint of the signer": {func(c *Config) {
			c.ServerName = "web"
			c.Roots, c.Fingerprints = nil, []string{Fingerprint(r.issuer.Cert)}
		}, 0, Misnamed, "not web"},
		"another's name":       {func(c *Config) { c.ServerName = "istiod" }, 0, Misnamed, "the server is of the CA's roots, and its certificate bears another name: x509: certificate is valid for istio-citadel, ca.example, not istiod"},
		"another's altogether": {func(c *Config) { c.Roots, c.ServerName = []*x509.Certificate{foreign.Cert}, "istiod" }, 0, NotTheCA, "certificate signed by unknown authority"},
		"wrong word":           {func(c *Config) { c.Token = "wrong" }, 0, NotProven, "the word is wrong"},
		"no proof":             {func(c *Config) { c.Token = "" }, 0, NotProven, "no proof of identity is given"},
		"cannot be checked":    {func(c *Config) { c.Token = "down" }, 0, Unreachable, "NOT_CHECKED"},
		"too long a life":      {func(*Config) {}, 200 * time.Hour, Refused, "greater than the max allowed TTL"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := r.config()
			c.edit(&cfg)
			_, err := r.client(cfg).Sign(t.Context(), csr(t), c.ttl)
			e, ok := errors.AsType[*Error](err)
			if !ok || e.Kind != c.kind || !strings.Contains(e.Reason, c.text) {
				t.Fatalf("kind %d: %v", e.Kind, err)
			}
			if fromServer := c.kind == NotProven || c.kind == Refused || c.text == "NOT_CHECKED"; fromServer != (e.Ref != "") {
				t.Errorf("ref %q", e.Ref)
			}
		})
	}
}

func TestWrongClockIsSaid(t *testing.T) {
	for name, later := range map[string]time.Duration{"behind by a year": 365 * 24 * time.Hour, "ahead by ten years and more": -11 * 365 * 24 * time.Hour} {
		r := newRig(t, later)
		_, err := r.client(r.config()).Sign(t.Context(), csr(t), 0)
		if e, ok := errors.AsType[*Error](err); !ok || e.Kind != NotTheCA || !strings.Contains(e.Reason, "this host's clock says "+time.Now().UTC().Format("2006-01-02")) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOverloadIsPutOff(t *testing.T) {
	r := newRig(t, 0)
	c := r.client(r.config())
	for range 3 {
		if _, err := c.Sign(t.Context(), csr(t), 0); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.Sign(t.Context(), csr(t), 0)
	if e, ok := errors.AsType[*Error](err); !ok || e.Kind != Unreachable || e.RetryAfter < 30*time.Second || e.Ref == "" {
		t.Errorf("%+v", err)
	}
}

func TestRootsAreWatched(t *testing.T) {
	r := newRig(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	seen := make(chan int)
	ended := make(chan error, 1)
	cfg := r.config()
	cfg.Token = ""
	c := r.client(cfg)
	go func() {
		ended <- c.WatchRoots(ctx, func(roots Roots) { seen <- len(roots.Certificates) })
	}()
	if n := <-seen; n != 1 {
		t.Errorf("%d roots", n)
	}
	r.server.SetRoots([]*x509.Certificate{r.issuer.Root().Cert, catest.Root(t, time.Now(), catest.Spec{Name: "new"}).Cert})
	if n := <-seen; n != 2 {
		t.Errorf("%d roots", n)
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the watch ended well")
	}
}

func TestAddresses(t *testing.T) {
	roots := []*x509.Certificate{catest.Root(t, time.Now(), catest.Spec{Name: "root"}).Cert}
	for address, ok := range map[string]bool{
		"istio-citadel:8060": true, "192.0.2.1:8060": true, "[2001:db8::1]:8060": true,
		"istio-citadel": false, ":8060": false, "istio-citadel:": false, "istio-citadel:grpc": false, "istio-citadel:0": false, "istio-citadel:65536": false, "": false,
		"https://istio-citadel:8060": false,
	} {
		c, err := New(Config{Address: address, Roots: roots})
		if (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
		if err == nil {
			_ = c.Close()
		}
	}
	if _, err := New(Config{Address: "istio-citadel:8060"}); err == nil {
		t.Error("nothing is trusted, and a client was made")
	}
}

func TestJoinText(t *testing.T) {
	j := Join{Address: "ca.example:8060", Fingerprints: []string{strings.Repeat("0a", 32)}, Bearer: "citadel-join.x.y"}
	text := j.Encode()
	if got, err := ParseJoin(" " + text + "\n"); err != nil || got.Address != j.Address || got.Bearer != j.Bearer || got.Fingerprints[0] != j.Fingerprints[0] {
		t.Errorf("%+v, %v", got, err)
	}
	none, odd := j, j
	none.Fingerprints, odd.Fingerprints = nil, []string{"0A"}
	for name, text := range map[string]string{
		"is no join token": "x", "is a damaged": text[:len(text)-3], "without the fingerprint": none.Encode(), `"0A" is none`: odd.Encode(), "begins with": "",
	} {
		if _, err := ParseJoin(text); err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), j.Bearer) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzJoin(f *testing.F) {
	f.Add(Join{Address: "a:1", Fingerprints: []string{strings.Repeat("0a", 32)}, Bearer: "x"}.Encode())
	f.Add("citadel-join-v1.e30")
	f.Fuzz(func(t *testing.T, text string) {
		j, err := ParseJoin(text)
		if err == nil && (len(j.Fingerprints) == 0 || j.Bearer == "" || j.Address == "") {
			t.Errorf("%+v", j)
		}
	})
}

func FuzzReply(f *testing.F) {
	root := string(catest.Root(f, time.Now(), catest.Spec{Name: "root"}).PEM())
	f.Add(root, root, root)
	f.Add(root, "", "x")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		issued, err := parse([]string{a, b, c})
		if err == nil && (len(issued.Chain) < 2 || len(issued.Roots) == 0) {
			t.Errorf("%+v", issued)
		}
	})
}
