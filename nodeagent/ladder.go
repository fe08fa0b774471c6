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

// ladder lists the ways in the order in which they are tried, and what is wrong
// with those that cannot be. Tokens are read anew each time: somebody may have
// brought a fresh one.
func (a *Agent) ladder(now time.Time) (rungs []rung, wrong []error) {
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
	switch token, err := a.set.Token(); {
	case err == nil:
		byToken := base
		byToken.Token = token
		rungs = append(rungs, rung{name: "token", cfg: byToken})
	case !errors.Is(err, fs.ErrNotExist):
		wrong = append(wrong, err)
	}
	switch {
	case joinErr == nil:
		byJoin := base
		byJoin.Token = join.Bearer
		if !a.set.AddressGiven {
			byJoin.Address = join.Address
		}
		rungs = append(rungs, rung{name: "join token", cfg: byJoin, joins: true})
	case !errors.Is(joinErr, fs.ErrNotExist):
		wrong = append(wrong, joinErr)
	}
	return rungs, wrong
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
// proof would change nothing.
func (a *Agent) climb(ctx context.Context, now time.Time) (obtained, error) {
	rungs, failed := a.ladder(now)
	for _, r := range rungs {
		got, err := a.ask(ctx, r)
		if err == nil {
			return got, nil
		}
		failed = append(failed, fmt.Errorf("%s: %w", r.name, err))
		e, ok := errors.AsType[*caclient.Error](err)
		if !ok || e.Kind == caclient.Refused || e.Kind == caclient.Unreachable {
			break
		}
	}
	return obtained{}, a.explain(rungs, failed)
}

// explain joins what was wrong into one sentence with the next step.
func (a *Agent) explain(rungs []rung, failed []error) error {
	var parts []string
	var last *caclient.Error
	for _, err := range failed {
		parts = append(parts, err.Error())
		if e, ok := errors.AsType[*caclient.Error](err); ok {
			last = e
		}
	}
	f := &failure{cause: last}
	switch {
	case len(rungs) == 0 && len(parts) == 0:
		f.text = "there is nothing to join with: give a join token (citadelctl token create), a token file, or key, chain and root in the certificate files"
	case len(rungs) == 0:
		f.text = strings.Join(parts, "; ")
	case last != nil && last.Kind == caclient.NotProven:
		f.text = strings.Join(parts, "; ") + ": bring a fresh join token (citadelctl token create)"
	case last != nil && last.Kind == caclient.NotTheCA:
		f.text = strings.Join(parts, "; ") + ": compare --ca-address; where the CA's root has changed while this host was away, bring a fresh join token (citadelctl token create)"
	default:
		f.text = strings.Join(parts, "; ")
	}
	return f
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
	limited, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	issued, err := a.set.Sign(limited, r.cfg, csr, a.set.TTL)
	if err != nil {
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
