package statedir

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// TrustDomain returns the trust domain that citadel serves from the directory;
// zero where none has said so yet.
func (d *Dir) TrustDomain() (spiffeid.TrustDomain, error) {
	text, _, err := d.read(domainName)
	if errors.Is(err, fs.ErrNotExist) {
		return spiffeid.TrustDomain{}, nil
	}
	if err != nil {
		return spiffeid.TrustDomain{}, err
	}
	name := strings.TrimSuffix(string(text), "\n")
	td, err := spiffeid.TrustDomainFromString(name)
	if err != nil || td.Name() != name {
		return spiffeid.TrustDomain{}, fmt.Errorf("%s is damaged, and holds no trust domain: start citadel, which writes it", d.name(domainName))
	}
	return td, nil
}

// KeepTrustDomain writes down what citadel serves, so that tools name whom it
// knows. Only the citadel that serves may call it.
func (d *Dir) KeepTrustDomain(td spiffeid.TrustDomain) error {
	if kept, err := d.TrustDomain(); err == nil && kept == td {
		return nil
	}
	return d.replace(domainName, []byte(td.Name()+"\n"))
}
