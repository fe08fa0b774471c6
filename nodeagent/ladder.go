package nodeagent

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"slices"
	"strings"
	"time"

	"citadel/ca/caclient"
	"citadel/nodeagent/certdir"
)

// rung is one way to prove who this host is.
type rung struct {
	name string
	cfg  caclient.Config
	// joins: by a token that counts its uses by key, so the key is kept over
	// failures and restarts.
	joins bool
}

// ladder lists the ways in the order in which they are tried, what is wrong
// with those that cannot be, and where nothing was found. Tokens are read anew
// each time: somebody may have brought a fresh one.
func (a *Agent) ladder(now time.Time) (rungs []rung, wrong, absent []error) {
	cannot := func(err error) {
		if errors.Is(err, fs.ErrNotExist) {
			absent = append(absent, err)
		} else {
			wrong = append(wrong, err)
		}
	}
	base := caclient.Config{Address: a.set.Address, ServerName: a.set.ServerName, Fingerprints: slices.Clone(a.set.Fingerprints)}
	join, joinErr := a.set.Join()
	if joinErr == nil {
		base.Fingerprints = append(base.Fingerprints, join.Fingerprints...)
	}
	roots, err := a.set.Roots()
	if err != nil {
		wrong = append(wrong, err)
	}
	base.Roots = roots
	if held := a.held; held != nil {
		base.Roots = append(base.Roots, held.Roots.X509Authorities()...)
		name := "certificate"
		if expired(now, held.SVID) {
			name = "expired certificate"
		}
		byCertificate := base
		byCertificate.Certificate = shown(*held)
		rungs = append(rungs, rung{name: name, cfg: byCertificate})
	}
	if token, err := a.set.Token(); err == nil {
		byToken := base
		byToken.Token = token
		rungs = append(rungs, rung{name: "token", cfg: byToken})
	} else {
		cannot(err)
	}
	if joinErr == nil {
		byJoin := base
		byJoin.Token = join.Bearer
		if !a.set.AddressGiven {
			byJoin.Address = join.Address
		}
		rungs = append(rungs, rung{name: "join token", cfg: byJoin, joins: true})
	} else {
		cannot(joinErr)
	}
	return rungs, wrong, absent
}

// shown is a set as a TLS client shows it.
func shown(set certdir.Set) *tls.Certificate {
	cert := &tls.Certificate{PrivateKey: set.SVID.PrivateKey, Leaf: set.SVID.Certificates[0]}
	for _, c := range set.SVID.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert
}

// obtained is what a climb of the ladder brought.
type obtained struct {
	set     certdir.Set
	renewBy time.Time
	by      rung
}

// climb asks the CA, with one proof after the other until one is taken. A CA
// that does not answer, or that knows who asks and refuses, ends it: another
// proof would change nothing, unless it leads to another place. held is why the
// sinks hold nothing; nil if they do.
func (a *Agent) climb(ctx context.Context, now time.Time, held error) (obtained, error) {
	rungs, wrong, absent := a.ladder(now)
	failed := slices.Concat(a.set.Wrong, wrong)
	if held != nil && !errors.Is(held, fs.ErrNotExist) {
		failed = append(failed, fmt.Errorf("the certificate files are not usable, and left as they are until there are new ones: %w", held))
	}
	if len(rungs) == 0 {
		return obtained{}, nothingToProve(failed, absent)
	}
	var gone string // an address where nobody answers
	for _, r := range rungs {
		if r.cfg.Address == gone {
			continue
		}
		got, err := a.ask(ctx, r)
		if err == nil {
			return got, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", r.name, err))
		e, ok := errors.AsType[*caclient.Error](err)
		if !ok || e.Kind == caclient.Refused {
			break
		}
		if e.Kind == caclient.Unreachable {
			gone = r.cfg.Address
		}
	}
	return obtained{}, explain(failed)
}

// nothingToProve is why nobody was asked.
func nothingToProve(wrong, absent []error) error {
	const todo = "give a join token (citadelctl token create), a token file, or key, chain and root in the certificate files"
	var found []string
	for _, err := range absent {
		if err != fs.ErrNotExist { // the bare one names no file: none was asked for
			found = append(found, err.Error())
		}
	}
	switch {
	case len(wrong) > 0:
		return &failure{text: sentence(wrong)}
	case len(found) > 0:
		return &failure{text: "there is nothing to join with (" + strings.Join(found, "; ") + "): " + todo}
	}
	return &failure{text: "there is nothing to join with: " + todo}
}

// explain joins what was wrong into one sentence with the next step.
func explain(failed []error) error {
	f := &failure{text: sentence(failed)}
	for _, err := range failed {
		if e, ok := errors.AsType[*caclient.Error](err); ok {
			f.cause = e
		}
	}
	switch {
	case f.cause == nil || strings.Contains(f.text, caclient.CompareClock) || strings.Contains(f.text, "citadelctl token create"): // it says what to do
	case f.cause.Kind == caclient.NotProven:
		f.text += ": bring a fresh join token (citadelctl token create)"
	case f.cause.Kind == caclient.Misnamed:
		f.text += ": give one of its names by --ca-server-name, or add this one to citadel's by --grpc-host-identities; --ca-address may be another server of the mesh"
	case f.cause.Kind == caclient.NotTheCA:
		f.text += ": compare --ca-address; where the CA's root has changed while this host was away, bring a fresh join token (citadelctl token create)"
	case f.cause.Kind == caclient.Unreachable && f.cause.Ref == "": // nobody answered
		f.text += ": is that the CA's address (--ca-address), and does it run and let this host through? It is asked again"
	case strings.Contains(f.cause.Reason, "is banned"):
		f.text += ": ask who runs the CA (citadelctl identity list and unban); it says why in brackets, if a reason was given"
	case strings.HasPrefix(f.cause.Reason, "TTL_ERROR"):
		f.text += ": lower --workload-cert-ttl"
	case strings.HasPrefix(f.cause.Reason, "CSR_ERROR"):
		f.text += ": compare --spiffe-id and --key-type with what the CA allows"
	case f.cause.Kind == caclient.Broken:
		f.text += ": compare --ca-address and the CA's version"
	}
	return f
}

func sentence(errs []error) string {
	var parts []string
	for _, err := range errs {
		parts = append(parts, err.Error())
	}
	return strings.Join(parts, "; ")
}

// failure is why no certificate was had.
type failure struct {
	text  string
	cause *caclient.Error // what the CA said last; nil if it was not asked
}

func (f *failure) Error() string { return f.text }

func (f *failure) retryAfter() time.Duration {
	if f.cause == nil {
		return 0
	}
	return f.cause.RetryAfter
}

// askLimit is what one question to the CA may take.
const askLimit = 20 * time.Second

// notTLS is what crypto/tls says of a server of HTTP or another protocol.
const notTLS = "first record does not look like a TLS handshake"

// ask has a new key certified, and checks the whole answer.
func (a *Agent) ask(ctx context.Context, r rung) (obtained, error) {
	if len(r.cfg.Roots) == 0 && len(r.cfg.Fingerprints) == 0 {
		return obtained{}, errors.New("no root of the CA is known: give --ca-root or --ca-fingerprint, or use a join token")
	}
	key, err := a.newKey(r.joins)
	if err != nil {
		return obtained{}, err
	}
	csr, err := a.request(key)
	if err != nil {
		return obtained{}, err
	}
	a.dialled = r.cfg.Address
	a.beat()
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	issued, err := a.set.Sign(limited, r.cfg, csr, a.set.TTL)
	if err != nil {
		if e, ok := errors.AsType[*caclient.Error](err); ok && e.Kind == caclient.Unreachable && e.Ref == "" {
			if strings.Contains(e.Reason, notTLS) {
				return obtained{}, fmt.Errorf("%s answers without TLS, and so is no CA: %w", r.cfg.Address, err)
			}
			return obtained{}, fmt.Errorf("%s does not answer: %w", r.cfg.Address, err)
		}
		return obtained{}, err
	}
	set, err := check(time.Now(), issued, key, a.want())
	if err != nil {
		return obtained{}, &caclient.Error{Kind: caclient.Refused, Reason: err.Error()}
	}
	return obtained{set: set, renewBy: issued.RenewBy, by: r}, nil
}

// newKey is a fresh key each time, but for a join: its token may have been
// counted for a key whose certificate never arrived.
func (a *Agent) newKey(joins bool) (crypto.Signer, error) {
	if !joins {
		return a.set.KeyType.Generate()
	}
	key, err := a.set.JoinKey.Load()
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = a.set.KeyType.Generate(); err != nil {
		return nil, err
	}
	return key, a.set.JoinKey.Save(key)
}

// request is a CSR that names who this host is, as far as it knows.
func (a *Agent) request(key crypto.Signer) ([]byte, error) {
	template := &x509.CertificateRequest{}
	if a.set.Organization != "" {
		template.Subject = pkix.Name{Organization: []string{a.set.Organization}}
	}
	if id := a.want(); !id.IsZero() {
		template.URIs = []*url.URL{id.URL()}
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	return der, nil
}
