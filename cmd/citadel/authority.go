package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"citadel/ca"
	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/secretcontroller"
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
	if err == nil && p.cfg.client != nil {
		p.warnOfOtherRoots(ctx, signer.Signer)
	}
	return authority, signer, err
}

// publishedLimit is how long the start waits for the roots of before: a warning
// is not worth more.
const publishedLimit = 5 * time.Second

// warnOfOtherRoots tells, while nothing has been written yet, of a change of
// roots in which peers will not trust each other for a while.
func (p *process) warnOfOtherRoots(ctx context.Context, signer *trust.Signer) {
	ctx, cancel := context.WithTimeout(ctx, publishedLimit)
	defer cancel()
	published, err := p.cfg.publishedRoots(ctx, p.cfg.client)
	if err != nil {
		p.log.Info("roots that are published now could not be read, and are not compared with those in use", "err", err)
		return
	}
	now := time.Now()
	published = slices.DeleteFunc(published, func(root *x509.Certificate) bool { return now.After(root.NotAfter) })
	if len(published) == 0 {
		return
	}
	lost := slices.DeleteFunc(slices.Clone(published), func(root *x509.Certificate) bool { return slices.ContainsFunc(signer.Roots(), root.Equal) })
	change := []any{"published", fingerprints(published), "inUse", fingerprints(signer.Roots()), "secretsRenewedBy", now.Add(p.cfg.rootWindow).UTC()}
	if len(lost) > 0 {
		p.log.Warn("roots that are published now are not among those in use: peers with certificates of the old roots are not trusted "+
			"by those whose Secrets have been renewed; while there are such peers, put the old roots into root-cert.pem (or --root-cert) too, "+
			"until all Secrets are renewed and programs have reloaded them", append(change, "missing", fingerprints(lost))...)
	}
	if !kube.Vouch(published, signer, now) {
		p.log.Warn("the signing certificate is not below the roots that are published now: peers whose Secrets are not renewed yet do not trust "+
			"what it signs; to change without a gap, let the CA of before sign and publish the new root too (--root-cert), until all Secrets hold both", change...)
	}
}

// publishedRoots are those of the ConfigMap of old agents, which is in the
// storage namespace whether that is managed or not. It holds the chain, too. A
// list of one asks for no right but that of the controller's watch.
func (c *config) publishedRoots(ctx context.Context, client kubernetes.Interface) ([]*x509.Certificate, error) {
	name := secretcontroller.LegacyConfigMap
	list, err := client.CoreV1().ConfigMaps(c.namespace).List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
	if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", c.namespace, name, err)
	}
	for _, cm := range list.Items {
		if cm.Name != name || cm.Data[secretcontroller.LegacyRootsKey] == "" {
			continue
		}
		text, err := base64.StdEncoding.DecodeString(cm.Data[secretcontroller.LegacyRootsKey])
		if err != nil {
			return nil, fmt.Errorf("ConfigMap %s/%s %w: %w", c.namespace, name, kube.ErrDamaged, err)
		}
		certs, err := trust.ParseCertificates(text)
		if err != nil {
			return nil, fmt.Errorf("ConfigMap %s/%s %w: %s %w", c.namespace, name, kube.ErrDamaged, secretcontroller.LegacyRootsKey, err)
		}
		return slices.DeleteFunc(certs, func(cert *x509.Certificate) bool { return !bytes.Equal(cert.RawIssuer, cert.RawSubject) }), nil
	}
	return nil, nil
}

// fingerprints name certificates beyond doubt.
func fingerprints(certs []*x509.Certificate) []string {
	var names []string
	for _, cert := range certs {
		sum := sha256.Sum256(cert.Raw)
		names = append(names, trust.Name(cert)+" sha256:"+hex.EncodeToString(sum[:]))
	}
	return names
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

// choices are the Secrets that a source may mean.
var choices = map[source]kube.Choice{sourceAuto: kube.Either, sourcePlugged: kube.OnlyPlugged, sourceSelfSigned: kube.OnlyCASecret}

// loadSigner gets the signer from the files of the flags, else from the cluster.
// MayMake is asked before a root is made.
func (c *config) loadSigner(ctx context.Context, client kubernetes.Interface, log *slog.Logger, mayMake func(context.Context) error) (kept, error) {
	if c.source == sourceFiles {
		log.Info("operator's own CA", "file", c.signingCert)
		return kept{Signer: c.signer}, nil
	}
	found, err := kube.Source{
		Client: client, Namespace: c.namespace, Choice: choices[c.source], ReadOnly: c.readOnly, Root: c.newRoot(), MayMake: mayMake,
		Published:   func(ctx context.Context) ([]*x509.Certificate, error) { return c.publishedRoots(ctx, client) },
		PublishedIn: "ConfigMap " + c.namespace + "/" + secretcontroller.LegacyConfigMap,
		Tell: func(err error) {
			switch {
			case errors.Is(err, kube.ErrBothLayouts):
				log.Warn("operator's own CA is there twice", "err", err)
			case errors.Is(err, kube.ErrOtherRoots):
				log.Error("nothing is signed", "err", err)
			default:
				log.Warn("authority is not loaded yet", "err", err)
			}
		},
	}.Load(ctx)
	if errors.Is(err, kube.ErrNoSigner) {
		return kept{}, fmt.Errorf("%w: either specify a cert file by --signing-cert, make Secret %s/%s, or use --self-signed-ca", err, c.namespace, kube.PluggedSecret)
	}
	if err != nil {
		return kept{}, err
	}
	place := c.namespace + "/" + found.Secret
	switch {
	case found.Made:
		log.Warn("a new root was made: keep a backup of its Secret", "secret", place)
	case found.Secret == kube.PluggedSecret:
		log.Info("operator's own CA", "secret", place)
	default:
		log.Info("self-signed root", "secret", place)
	}
	signer, err := c.withExtraRoots(found.Signer)
	return kept{signer, "Secret " + place, func(ctx context.Context) error { return kube.Holds(ctx, client, c.namespace, found) }}, err
}

// withExtraRoots adds the roots of --root-cert to every bundle.
func (c *config) withExtraRoots(signer *trust.Signer) (*trust.Signer, error) {
	if len(c.extraRoots.PEM) == 0 {
		return signer, nil
	}
	return signer.WithRoots(c.extraRoots)
}
