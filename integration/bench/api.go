package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"golang.org/x/sync/errgroup"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/caclient"
	"citadel/ca/trust"
	"citadel/integration/cluster"
)

// What is asked of the CSR API: by so many at once, in turns of so long with
// the floors, so many of them.
const (
	callersNamespace = "callers"
	callersCount     = 16
	apiTurn          = 2 * time.Second
	apiRounds        = 15
)

// The operator's own CA, which citadel and the barest server share.
const (
	caCertFile = "ca-cert.pem"
	caKeyFile  = "ca-key.pem"
)

// api measures the CSR API: certificates for callers that ask without a pause.
func (b *bench) api(ctx context.Context) error { return b.withCA(ctx, "api", b.issuance) }

// idleAgents measures what agents cost that only watch.
func (b *bench) idleAgents(ctx context.Context) error { return b.withCA(ctx, "agents", b.idle) }

// withCA does a part beside a control plane, with a root of its own.
func (b *bench) withCA(ctx context.Context, dir string, part func(context.Context, *trust.Signer) error) (err error) {
	if err := b.controlPlane(ctx, dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.plane.Stop()) }()
	root, err := b.ownCA()
	if err != nil {
		return err
	}
	return part(ctx, root)
}

// ownCA makes a root and leaves it in files.
func (b *bench) ownCA() (*trust.Signer, error) {
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	root, err := trust.NewSelfSigned(time.Now(), trust.SelfSigned{TrustDomain: td, KeyType: trust.ECDSAP256, Lifetime: 24 * time.Hour})
	if err != nil {
		return nil, err
	}
	key, err := trust.MarshalKey(root.Key())
	if err != nil {
		return nil, err
	}
	return root, errors.Join(os.WriteFile(filepath.Join(b.dir, caCertFile), root.RootsPEM(), 0o600),
		os.WriteFile(filepath.Join(b.dir, caKeyFile), key, 0o600))
}

// serve starts citadel for the CSR API alone, and waits until it is ready. All
// callers are at one address.
func (b *bench) serve(ctx context.Context) (*cluster.Citadel, error) {
	cert := filepath.Join(b.dir, caCertFile)
	c, err := b.start("--server-only", "--grpc-caller-rate", "0", "--grpc-max-connections-per-address", "1000000", "--enable-profiling",
		"--signing-cert", cert, "--root-cert", cert, "--signing-key", filepath.Join(b.dir, caKeyFile))
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

func apiAddress(c *cluster.Citadel) string { return fmt.Sprintf("127.0.0.1:%d", c.APIPort) }

// issuance lets citadel, the barest server and crypto/x509 take turns.
func (b *bench) issuance(ctx context.Context, root *trust.Signer) (err error) {
	c, err := b.serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Stop()) }()
	bare, err := startBarest(b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bare.stop()) }()
	everyone, err := b.join(ctx, apiAddress(c), root)
	if err != nil {
		return err
	}
	certs, err := dialAll(apiAddress(c), root, everyone, callerProof.byCertificate)
	if err != nil {
		return err
	}
	tokens, err := dialAll(apiAddress(c), root, everyone, callerProof.byToken)
	if err != nil {
		return err
	}
	barest, err := dialAll(bare.address, root, everyone, callerProof.byCertificate)
	if err != nil {
		return err
	}
	defer func() { closeAll(slices.Concat(certs, tokens, barest)) }()
	progress("certificates by the CSR API for %d callers, in turns with crypto/x509 and the barest server", callersCount)
	var signed, asked, shown, told series
	for range apiRounds {
		for _, turn := range []struct {
			of *series
			do func() ([]time.Duration, error)
		}{
			{&signed, func() ([]time.Duration, error) { return signAlone(root, everyone[0].csr) }},
			{&asked, func() ([]time.Duration, error) { return load(ctx, barest) }},
			{&shown, func() ([]time.Duration, error) { return load(ctx, certs) }},
			{&told, func() ([]time.Duration, error) { return load(ctx, tokens) }},
		} {
			if err := turn.of.take(turn.do); err != nil {
				return err
			}
		}
	}
	alone := fmt.Sprintf("%.0f/s crypto/x509", signed.rate())
	barestSaid := asked.String() + " barest server"
	b.add("CreateCertificate, client certificates", shown.String(), barestSaid, shown.beside(asked), "at least 0.85, 3500/s, p99 25ms")
	b.add("the same beside parse, check, sign", shown.String(), alone, shown.beside(signed), "at least 0.4")
	b.add("CreateCertificate, Kubernetes tokens", told.String(), barestSaid, told.beside(asked), "3000/s")
	return nil
}

// callerProof is what one caller asks with.
type callerProof struct {
	token string
	cert  *tls.Certificate
	csr   []byte
}

func (p callerProof) byCertificate() callerProof { return callerProof{cert: p.cert, csr: p.csr} }
func (p callerProof) byToken() callerProof       { return callerProof{token: p.token, csr: p.csr} }

// join makes the service accounts, and gets each its first certificate by its
// token, as a real client would.
func (b *bench) join(ctx context.Context, address string, root *trust.Signer) ([]callerProof, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	core := b.plane.Client.CoreV1()
	if _, err := core.Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: callersNamespace}}, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	everyone := make([]callerProof, callersCount)
	for i := range everyone {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name(i)}}
		if _, err := core.ServiceAccounts(callersNamespace).Create(ctx, account, metav1.CreateOptions{}); err != nil {
			return nil, err
		}
		token, err := core.ServiceAccounts(callersNamespace).CreateToken(ctx, name(i),
			&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}, metav1.CreateOptions{})
		if err != nil {
			return nil, err
		}
		if everyone[i], err = joined(ctx, address, root, token.Status.Token); err != nil {
			return nil, err
		}
	}
	return everyone, nil
}

func joined(ctx context.Context, address string, root *trust.Signer, token string) (callerProof, error) {
	key, csr, err := newCSR()
	if err != nil {
		return callerProof{}, err
	}
	client, err := caclient.New(caclient.Config{Address: address, Roots: root.Roots(), Token: token})
	if err != nil {
		return callerProof{}, err
	}
	defer client.Close()
	for {
		issued, err := client.Sign(ctx, csr, time.Hour)
		if err == nil {
			return callerProof{token: token, csr: csr,
				cert: &tls.Certificate{Certificate: [][]byte{issued.Chain[0].Raw}, PrivateKey: key, Leaf: issued.Chain[0]}}, nil
		}
		if e, ok := errors.AsType[*caclient.Error](err); !ok || e.Kind != caclient.Unreachable {
			return callerProof{}, err
		}
		select {
		case <-time.After(100 * time.Millisecond): // the API server's keys are on their way
		case <-ctx.Done():
			return callerProof{}, errors.Join(context.Cause(ctx), err)
		}
	}
}

// signAlone is what one turn of this process takes for each certificate when
// every processor parses, checks and signs.
func signAlone(root *trust.Signer, csr []byte) ([]time.Duration, error) {
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/default/sa/sleep")
	return during(runtime.GOMAXPROCS(0), func(int) error { return bare(root, id, csr) })
}

// during has so many do something again and again for one turn, and returns
// how long it took each time.
func during(workers int, do func(worker int) error) ([]time.Duration, error) {
	took := make([][]time.Duration, workers)
	end := time.Now().Add(apiTurn)
	var group errgroup.Group
	for worker := range workers {
		group.Go(func() error {
			for begin := time.Now(); begin.Before(end); {
				if err := do(worker); err != nil {
					return err
				}
				now := time.Now()
				took[worker], begin = append(took[worker], now.Sub(begin)), now
			}
			return nil
		})
	}
	err := group.Wait()
	return slices.Concat(took...), err
}

// series is what one subject did in its turns.
type series struct {
	rates []float64 // of each turn, per second
	took  []time.Duration
}

func (s *series) take(turn func() ([]time.Duration, error)) error {
	begin := time.Now()
	took, err := turn()
	s.rates = append(s.rates, float64(len(took))/time.Since(begin).Seconds())
	s.took = append(s.took, took...)
	return err
}

func (s *series) rate() float64 { return middle(s.rates) }

func (s *series) String() string {
	slices.Sort(s.took)
	return fmt.Sprintf("%.0f/s, p99 %s", s.rate(), s.took[len(s.took)*99/100].Round(100*time.Microsecond))
}

// beside is the ratio to another series, turn by turn: a machine that changes
// its speed changes both.
func (s *series) beside(floor series) string {
	var ratios []float64
	for i, rate := range s.rates {
		ratios = append(ratios, rate/floor.rates[i])
	}
	return fmt.Sprintf("%.2f", middle(ratios))
}

func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
