package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// identity is what a mounted Secret holds at the moment of asking. It is a
// source of both SVID and bundle.
type identity struct {
	dir    string
	domain spiffeid.TrustDomain

	mu      sync.Mutex
	version string // what the symbolic link ..data named when it was read
	svid    *x509svid.SVID
	bundle  *x509bundle.Bundle
	loads   int
}

// GetX509SVID implements x509svid.Source.
func (i *identity) GetX509SVID() (*x509svid.SVID, error) {
	svid, _, err := i.current()
	return svid, err
}

// GetX509BundleForTrustDomain implements x509bundle.Source.
func (i *identity) GetX509BundleForTrustDomain(td spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	_, bundle, err := i.current()
	if err != nil {
		return nil, err
	}
	return bundle.GetX509BundleForTrustDomain(td)
}

// timesLoaded is how often the files were read.
func (i *identity) timesLoaded() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.loads
}

// current reads the files again when kubelet has put others in their place, which
// it does for all of them at once, by one symbolic link.
func (i *identity) current() (*x509svid.SVID, *x509bundle.Bundle, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	version, err := os.Readlink(filepath.Join(i.dir, "..data"))
	if err != nil {
		return nil, nil, fmt.Errorf("find the mounted Secret: %w", err)
	}
	if version == i.version {
		return i.svid, i.bundle, nil
	}
	var text [3][]byte
	for n, name := range []string{"cert-chain.pem", "key.pem", "root-cert.pem"} {
		if text[n], err = os.ReadFile(filepath.Join(i.dir, version, name)); err != nil {
			return nil, nil, err
		}
	}
	svid, err := x509svid.Parse(text[0], text[1])
	if err != nil {
		return nil, nil, err
	}
	bundle, err := x509bundle.Parse(i.domain, text[2])
	if err != nil {
		return nil, nil, err
	}
	i.version, i.svid, i.bundle, i.loads = version, svid, bundle, i.loads+1
	return svid, bundle, nil
}
