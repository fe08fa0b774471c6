package main

import (
	"cmp"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"

	"citadel/ca"
)

// whom is whom a ban is of: one of an identity, a certificate, and a service
// account whose trust domain is yet to be known. The zero whom is nobody.
type whom struct {
	id                 spiffeid.ID
	serial             string // canonical
	namespace, account string
}

// Serial numbers have at most 20 octets (RFC 5280 4.1.2.2). Citadel's have all
// of them, its ancestors' 16; of what is much shorter, a word such as "cafe" is
// likelier.
const (
	fewestDigits = 16
	mostDigits   = 40
)

const whomForms = "write a SPIFFE ID (spiffe://cluster.local/ns/web/sa/api), a certificate's serial number in hexadecimal, or NAMESPACE/SERVICE_ACCOUNT"

// parseWhom reads what a person writes.
func parseWhom(text string) (whom, error) {
	if strings.Contains(text, "://") {
		id, err := spiffeid.FromString(text)
		switch {
		case err != nil:
			return whom{}, fmt.Errorf("%q is no SPIFFE ID: %w", text, err)
		case id.Path() == "":
			return whom{}, fmt.Errorf("%q is a whole trust domain: only one identity or certificate can be banned", text)
		}
		return whom{id: id}, nil
	}
	if namespace, account, ok := strings.Cut(text, "/"); ok {
		if problems := cmp.Or(first(validation.IsDNS1123Label(namespace)), first(validation.IsDNS1123Subdomain(account))); problems != "" {
			return whom{}, fmt.Errorf("%q is no NAMESPACE/SERVICE_ACCOUNT: %s", text, problems)
		}
		return whom{namespace: namespace, account: account}, nil
	}
	digits := strings.ReplaceAll(text, ":", "")
	serial, ok := new(big.Int).SetString(digits, 16)
	switch {
	case text == "":
		return whom{}, errors.New("nobody is named: " + whomForms)
	case !ok || serial.Sign() <= 0 || strings.HasPrefix(digits, "+"):
		return whom{}, fmt.Errorf("%q is nobody: %s", text, whomForms)
	case len(digits) < fewestDigits:
		return whom{}, fmt.Errorf("%q is too short for a serial number of citadel's, which have 32 to 40 hexadecimal digits: %s", text, whomForms)
	case len(serial.Text(16)) > mostDigits:
		return whom{}, fmt.Errorf("%q is too long for a serial number, which has at most %d hexadecimal digits: is it decimal?", text, mostDigits)
	}
	return whom{serial: serial.Text(16)}, nil
}

func first(problems []string) string {
	if len(problems) == 0 {
		return ""
	}
	return problems[0]
}

// in gives the service account its trust domain, which may not be known.
func (w whom) in(td spiffeid.TrustDomain) (whom, error) {
	if w.account == "" {
		return w, nil
	}
	if td.IsZero() {
		return whom{}, codedError{exitUsage, fmt.Errorf("citadel's trust domain cannot be seen from here: give it by --%s, or write the whole SPIFFE ID", trustDomainFlag)}
	}
	id, err := ca.ServiceAccountID(td, w.namespace, w.account)
	return whom{id: id}, err
}

// key is what the list of bans calls him.
func (w whom) key() string {
	if w.serial != "" {
		return w.serial
	}
	return w.id.String()
}

// String is what messages call him.
func (w whom) String() string {
	if w.serial != "" {
		return "the certificate of serial number " + w.serial
	}
	return w.id.String()
}

var ofServiceAccount = regexp.MustCompile(`^/ns/[^/]+/sa/[^/]+$`)

// doubt is why a ban of him may not do what was meant; empty if it will. The
// trust domain may not be known.
func (w whom) doubt(td spiffeid.TrustDomain) string {
	switch {
	case w.serial != "":
		return ""
	case !td.IsZero() && w.id.TrustDomain() != td:
		return fmt.Sprintf("%s is not of citadel's trust domain %s: it gives nobody there a certificate anyway", w.id, td)
	case !ofServiceAccount.MatchString(w.id.Path()):
		return fmt.Sprintf("%s is no service account's, whose IDs end in /ns/NAMESPACE/sa/NAME: is it what you mean?", w.id)
	}
	return ""
}

// canonical is the key of an entry of the list of bans, which a person may have
// written otherwise; it reads entries as citadel does. What citadel cannot read
// stays as it is.
func canonical(entry string) string {
	if id, err := spiffeid.FromString(entry); err == nil {
		return id.String()
	}
	if serial, ok := new(big.Int).SetString(strings.ReplaceAll(entry, ":", ""), 16); ok && serial.Sign() > 0 {
		return serial.Text(16)
	}
	return entry
}
