package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"k8s.io/client-go/kubernetes"

	"citadel/ca"
	"citadel/ca/kube"
	"citadel/ca/trust"
)

// loadAuthority gets the signer from where the flags say, and makes an
// authority of it.
func (p *process) loadAuthority(ctx context.Context, s stores) (*ca.Authority, kept, error) {
	cfg, log := p.cfg, p.log
	signer, err := s.signer(ctx)
	if err != nil {
		return nil, kept{}, err
	}
	if id, err := x509svid.IDFromCert(signer.Cert()); err == nil && id.TrustDomain() != cfg.td {
		log.Warn("the signing certificate is another trust domain's: peers that know it as such will refuse what it signs",
			"its", id.TrustDomain().Name(), "ours", cfg.td.Name())
	}
	log.Info("signing certificate in use", "subject", signer.Cert().Subject.String(), "notAfter", signer.NotAfter().UTC(),
		"roots", len(signer.Roots()), "chain", len(signer.Chain()))
	authority, err := cfg.authority(signer.Signer, p.audit.write)
	if err != nil && signer.place != "" {
		err = fmt.Errorf("CA in %s: %w", signer.place, err)
	}
	return authority, signer, err
}

// authority makes one that signs as the flags say.
func (c *config) authority(signer *trust.Signer, audit func(ca.AuditRecord) error) (*ca.Authority, error) {
	authority, err := ca.New(time.Now(), ca.Config{
		TrustDomain: c.td,
		Signer:      signer,
		DefaultTTL:  c.workloadTTL,
		MaxTTL:      c.maxWorkloadTTL,
		DNSNames:    c.dnsNames,
		CommonName:  c.dualUse,
		Audit:       audit,
	})
	if errors.Is(err, ca.ErrDNSNames) {
		return nil, fmt.Errorf("%w (names come from --append-dns-names and --custom-dns-names)", err)
	}
	return authority, err
}

// loadSigner gets the signer from the files of the flags, else from the cluster.
// MayMake is asked before a root is made.
func (c *config) loadSigner(ctx context.Context, client kubernetes.Interface, log *slog.Logger, mayMake func(context.Context) error) (kept, error) {
	tell := func(err error) {
		if errors.Is(err, kube.ErrBothLayouts) {
			log.Warn("operator's own CA is there twice", "err", err)
			return
		}
		log.Warn("authority is not loaded yet", "err", err)
	}
	switch c.source {
	case sourceFiles:
		log.Info("operator's own CA", "file", c.signingCert)
		return kept{Signer: c.signer}, nil
	case sourcePlugged, sourceAuto:
		pieces, found, err := kube.Plugged(ctx, client, c.namespace, tell)
		switch {
		case err != nil:
			return kept{}, err
		case found:
			log.Info("operator's own CA", "secret", c.namespace+"/"+kube.PluggedSecret)
			signer, err := trust.NewSigner(time.Now(), pieces)
			if err != nil {
				return kept{}, err
			}
			signer, err = c.withExtraRoots(signer)
			return kept{Signer: signer, place: "Secret " + c.namespace + "/" + kube.PluggedSecret}, err
		case c.source == sourcePlugged:
			return kept{}, errors.New("no signing cert has been specified: either specify a cert file by --signing-cert, " +
				"make Secret " + c.namespace + "/" + kube.PluggedSecret + ", or use --self-signed-ca")
		}
	}
	store := kube.SelfSigned{Client: client, Namespace: c.namespace, ReadOnly: c.readOnly, Root: c.newRoot(), Tell: tell, MayMake: mayMake}
	signer, made, err := store.Load(ctx)
	if err != nil {
		return kept{}, err
	}
	log.Info("self-signed root", "secret", c.namespace+"/"+kube.CASecret, "made", made)
	root := signer.Cert()
	signer, err = c.withExtraRoots(signer)
	return kept{signer, "Secret " + c.namespace + "/" + kube.CASecret,
		func(ctx context.Context) error { return kube.HoldsRoot(ctx, client, c.namespace, root) }}, err
}

// withExtraRoots adds the roots of --root-cert to every bundle.
func (c *config) withExtraRoots(signer *trust.Signer) (*trust.Signer, error) {
	if len(c.extraRoots.PEM) == 0 {
		return signer, nil
	}
	return signer.WithRoots(c.extraRoots)
}
