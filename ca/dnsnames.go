package ca

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// DNSNames says which identities get DNS SANs, and which names, in order.
// Names come from the operator alone: no caller can ask for one.
type DNSNames map[spiffeid.ID][]string

// webhookServices are the service accounts of Istio's own webhooks, with the
// Service whose name their certificates bear.
var webhookServices = map[string]string{
	"istio-sidecar-injector-service-account": "istio-sidecar-injector",
	"istio-galley-service-account":           "istio-galley",
}

// ServiceAccountID is the identity of a Kubernetes service account:
// spiffe://<trust domain>/ns/<namespace>/sa/<name>.
func ServiceAccountID(td spiffeid.TrustDomain, namespace, name string) (spiffeid.ID, error) {
	id, err := spiffeid.FromSegments(td, "ns", namespace, "sa", name)
	if err != nil {
		return spiffeid.ID{}, fmt.Errorf("service account %q of namespace %q has no SPIFFE ID: %w", name, namespace, err)
	}
	return id, nil
}

// AddWebhooks adds the names of Istio's webhook services, whose service
// accounts live in the storage namespace.
func (d DNSNames) AddWebhooks(td spiffeid.TrustDomain, storageNamespace string) error {
	for account, service := range webhookServices {
		id, err := ServiceAccountID(td, storageNamespace, account)
		if err != nil {
			return err
		}
		d.add(id, service+"."+storageNamespace+".svc")
		d.add(id, service+"."+storageNamespace)
	}
	return nil
}

// AddCustom adds the names of a list SERVICE_ACCOUNT.NAMESPACE:DOMAIN,…. The
// namespace is what follows the last dot, for a service account's name may
// hold dots and a namespace's may not. Every entry at fault is reported.
func (d DNSNames) AddCustom(td spiffeid.TrustDomain, list string) error {
	var errs []error
	for entry := range strings.SplitSeq(list, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if err := d.addCustom(td, entry); err != nil {
			errs = append(errs, fmt.Errorf("entry %q: %w", entry, err))
		}
	}
	return errors.Join(errs...)
}

func (d DNSNames) addCustom(td spiffeid.TrustDomain, entry string) error {
	account, domain, ok := strings.Cut(entry, ":")
	dot := strings.LastIndexByte(account, '.')
	if !ok || dot < 1 || dot == len(account)-1 {
		return errors.New("is not of the form SERVICE_ACCOUNT.NAMESPACE:DOMAIN")
	}
	if err := CheckDNSName(domain); err != nil {
		return err
	}
	name, namespace := account[:dot], account[dot+1:]
	if !dnsName.MatchString(name) || !dnsLabel.MatchString(namespace) {
		return fmt.Errorf("%q is not the name of a service account and its namespace", account)
	}
	id, err := ServiceAccountID(td, namespace, name)
	if err != nil {
		return err
	}
	d.add(id, domain)
	return nil
}

func (d DNSNames) clone() DNSNames {
	own := maps.Clone(d)
	for id, names := range own {
		own[id] = slices.Clone(names)
	}
	return own
}

func (d DNSNames) add(id spiffeid.ID, name string) {
	if !slices.Contains(d[id], name) {
		d[id] = append(d[id], name)
	}
}

const label = `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?`

var (
	dnsLabel    = regexp.MustCompile(`^` + label + `$`)
	dnsName     = regexp.MustCompile(`^` + label + `(\.` + label + `)*$`)
	dnsWildcard = regexp.MustCompile(`^(\*\.)?` + label + `(\.` + label + `)*$`)
)

// CheckDNSName accepts lower-case host names of RFC 1123, whose last label is
// no number as an IP address's is, and a wildcard only as the whole left-most
// label of a longer name (R-10, RFC 9525 6.3).
func CheckDNSName(name string) error {
	wildcardTooWide := strings.HasPrefix(name, "*.") && strings.Count(name, ".") < 2
	last := name[strings.LastIndexByte(name, '.')+1:]
	isAddress := strings.Trim(last, "0123456789") == ""
	if len(name) > 253 || !dnsWildcard.MatchString(name) || wildcardTooWide || isAddress {
		return fmt.Errorf("%q is not a DNS name that a certificate may bear", name)
	}
	return nil
}
