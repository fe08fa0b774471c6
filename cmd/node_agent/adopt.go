package main

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca/regular"
	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
)

// held reads the files, and while there are none, those of --adopt-from: as
// somebody may put some there for the agent to go on from.
func (p *process) held(sink *certdir.Sink) (certdir.Set, error) {
	held, err := p.cfg.dir.Load()
	if errors.Is(err, fs.ErrNotExist) && p.cfg.adoptFrom != "" {
		if held, err = readSecret(p.cfg.adoptFrom); err == nil {
			err = sink.Install(held)
		}
		if err != nil {
			return held, fmt.Errorf("--adopt-from: %v", err) // not as fs.ErrNotExist: there should be something
		}
		p.log.Info("key, certificate and roots are adopted", "from", p.cfg.adoptFrom, "identity", held.SVID.ID.String())
	}
	if err == nil {
		p.narrow(sink.NarrowKey)
		err = p.enforcing.hold(held)
	}
	return held, err
}

// readSecret reads a folder as the kubelet mounts Secret istio.<service account>.
func readSecret(folder string) (set certdir.Set, err error) {
	var texts [3][]byte
	for i, name := range []string{"key.pem", "cert-chain.pem", "root-cert.pem"} {
		if texts[i], err = regular.Read(filepath.Join(folder, name)); err != nil {
			return certdir.Set{}, err
		}
	}
	svid, err := x509svid.Parse(texts[1], texts[0])
	if err != nil {
		return certdir.Set{}, fmt.Errorf("key and certificate in %s: %w", folder, err)
	}
	roots, err := trust.ParseCertificates(texts[2])
	if err != nil {
		return certdir.Set{}, fmt.Errorf("%s %w", filepath.Join(folder, "root-cert.pem"), err)
	}
	return certdir.Set{SVID: svid, Roots: x509bundle.FromX509Authorities(svid.ID.TrustDomain(), roots)}, nil
}
