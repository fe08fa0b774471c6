package nodeagent

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"io/fs"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
)

var web = spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/web")

// rig is an agent in a bubble of its own time, with a real authority behind a
// CA that a test can break.
type rig struct {
	t     *testing.T
	agent *Agent
	set   Settings
	ca    *ca.Authority
	root  *catest.Issuer

	mu        sync.Mutex
	fault     func(caclient.Config) error // guarded by mu: what a question ends in
	spoil     func(*caclient.Issued)      // guarded by mu
	asked     []caclient.Config           // guarded by mu
	csrs      []*x509.CertificateRequest  // guarded by mu
	events    []Event                     // guarded by mu
	installed []certdir.Set               // guarded by mu
	sinkErr   error                       // guarded by mu
	reloads   int                         // guarded by mu
	reloadErr error                       // guarded by mu
	join      *caclient.Join              // guarded by mu
	joinKey   crypto.Signer               // guarded by mu
	told      func(caclient.Roots)        // guarded by mu
	watches   int                         // guarded by mu
}

// bubble runs a test whose agent has not begun: it begins at run.
func bubble(t *testing.T, test func(*testing.T, *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		r := &rig{t: t, root: catest.Root(t, now, catest.Spec{Name: "root"})}
		r.ca = catest.Authority(t, now, ca.Config{Signer: r.root.Signer(t, now)})
		none := func() (string, error) { return "", fs.ErrNotExist }
		r.set = Settings{Address: "ca:8060", TTL: time.Hour, KeyType: trust.ECDSAP256, Renewal: DefaultRenewal,
			Roots: func() ([]*x509.Certificate, error) { return nil, nil }, Token: none,
			Join: r.readJoin, JoinKey: r, Sign: r.sign, Watch: r.watch, Sinks: []Sink{r}, Observe: r.observe}
		test(t, r)
	})
}

func (r *rig) readJoin() (caclient.Join, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.join == nil {
		return caclient.Join{}, fs.ErrNotExist
	}
	return *r.join, nil
}

// joins gives the host a join token.
func (r *rig) joins() {
	r.join = &caclient.Join{Address: "joined:8060", Fingerprints: []string{caclient.Fingerprint(r.root.Cert)}, Bearer: "secret"}
}

func (r *rig) Load() (crypto.Signer, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.joinKey == nil {
		return nil, fs.ErrNotExist
	}
	return r.joinKey, nil
}

func (r *rig) Save(key crypto.Signer) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.joinKey = key
	return nil
}

func (r *rig) Remove() error { return r.Save(nil) }

func (r *rig) Install(set certdir.Set) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.sinkErr == nil {
		r.installed = append(r.installed, set)
	}
	return r.sinkErr
}

func (r *rig) reload(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reloads++
	return r.reloadErr
}

func (r *rig) observe(e Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, e)
}

func (r *rig) sign(_ context.Context, cfg caclient.Config, csr []byte, ttl time.Duration) (caclient.Issued, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	request, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return caclient.Issued{}, err
	}
	r.asked, r.csrs = append(r.asked, cfg), append(r.csrs, request)
	if r.fault != nil {
		if err := r.fault(cfg); err != nil {
			return caclient.Issued{}, err
		}
	}
	chain, err := r.ca.Issue(time.Now(), ca.NewCaller(web, "test", ""), ca.Request{CSR: csr, TTL: ttl})
	if err != nil {
		return caclient.Issued{}, &caclient.Error{Kind: caclient.Refused, Reason: err.Error()}
	}
	issued := caclient.Issued{Chain: chain, Roots: r.ca.Signer().Roots()}
	if r.spoil != nil {
		r.spoil(&issued)
	}
	return issued, nil
}

func (r *rig) watch(ctx context.Context, _ caclient.Config, told func(caclient.Roots)) error {
	r.mu.Lock()
	r.told = told
	r.watches++
	r.mu.Unlock()
	<-ctx.Done()
	return ctx.Err()
}

// breaks makes every question end so from now on.
func (r *rig) breaks(fault func(caclient.Config) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault = fault
}

func unreachable(caclient.Config) error {
	return &caclient.Error{Kind: caclient.Unreachable, Reason: "connection refused"}
}

// run begins, and ends with the test.
func (r *rig) run() {
	r.t.Helper()
	r.agent = New(r.set)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.agent.Run(ctx)
	}()
	r.t.Cleanup(func() {
		cancel()
		<-ended
	})
	r.pass(0)
}

// pass lets time pass.
func (r *rig) pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func (r *rig) count() (asked, installed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked), len(r.installed)
}

func (r *rig) newest() certdir.Set {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.installed) == 0 {
		r.t.Fatal("nothing is installed")
	}
	return r.installed[len(r.installed)-1]
}

// holds gives the agent a certificate that was issued ago.
func (r *rig) holds(ago time.Duration) {
	r.t.Helper()
	key := catest.Key(r.t, trust.ECDSAP256, "held")
	chain, err := r.ca.Issue(time.Now().Add(-ago), ca.NewCaller(web, "test", ""), ca.Request{CSR: catest.CSR(r.t, key), TTL: r.set.TTL})
	if err != nil {
		r.t.Fatal(err)
	}
	set, err := check(chain[0].NotBefore, caclient.Issued{Chain: chain, Roots: r.ca.Signer().Roots()}, key, web)
	if err != nil {
		r.t.Fatal(err)
	}
	r.set.Held = func() (certdir.Set, error) { return set, nil }
}

var errDisk = errors.New("no space left on device")
