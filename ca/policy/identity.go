package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// isTrustDomain tells whether text names a trust domain.
func isTrustDomain(text string) bool {
	_, err := spiffeid.TrustDomainFromString(text)
	return err == nil
}

// identify fills in what the client checks and offers when it opens TLS.
func (x *explainer) identify() {
	if x.d.Client != TLSIstioMutual && x.d.Client != TLSSimple && x.d.Client != TLSMutual {
		return
	}
	settings := &ClientTLS{}
	if x.s.generation != Legacy && x.tls.settings != nil {
		settings = x.tls.settings
	}
	x.e.SNI = settings.SNI
	x.e.Identities = slices.Clone(settings.SubjectAltNames)
	if x.d.Client != TLSIstioMutual {
		return
	}
	x.e.SNI = cmp.Or(settings.SNI, fmt.Sprintf("outbound_.%d_.%s_.%s", x.q.Server.Port, x.q.Server.Subset, x.svc.host))
	x.e.ALPN = x.alpn()
	if len(x.e.Identities) == 0 {
		x.e.Identities = x.accounts()
	}
}

// alpn is what today's sidecars offer for mesh TLS. Release 0.5 offered none.
func (x *explainer) alpn() []string {
	protocol := ""
	if x.port >= 0 {
		protocol = x.svc.ports[x.port].protocol
	}
	switch {
	case x.s.generation == Legacy:
		return nil
	case protocol == "http":
		return []string{"istio-http/1.1", "istio", "http/1.1"}
	case isHTTP(protocol):
		return []string{"istio-h2", "istio", "h2"}
	}
	return []string{"istio-peer-exchange", "istio"}
}

// accounts are the identities behind the service: of the endpoints that may be
// picked, and those that the service itself lists.
func (x *explainer) accounts() (ids []string) {
	add := func(account string) {
		id, err := spiffeid.FromSegments(x.trustDomain(), "ns", x.svc.namespace, "sa", account)
		if err == nil {
			ids = append(ids, id.String())
		}
	}
	for _, w := range x.svc.endpoints {
		if x.q.Server.Endpoint == "" || w.name == x.q.Server.Endpoint {
			add(w.account)
		}
	}
	if e, is := x.svc.object.(*ServiceEntry); is {
		ids = append(ids, e.Spec.SubjectAltNames...)
	}
	if x.s.generation == Legacy {
		annotations := x.svc.object.meta().Annotations
		for account := range strings.SplitSeq(annotations["alpha.istio.io/kubernetes-serviceaccounts"], ",") {
			if account = strings.TrimSpace(account); account != "" {
				add(account)
			}
		}
		for id := range strings.SplitSeq(annotations["alpha.istio.io/canonical-serviceaccounts"], ",") {
			if id = strings.TrimSpace(id); id != "" {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// trustDomain is the mesh's; a name that is none yields IDs of nobody.
func (x *explainer) trustDomain() spiffeid.TrustDomain {
	td, err := spiffeid.TrustDomainFromString(x.s.mesh.trustDomain)
	if err != nil {
		return spiffeid.TrustDomain{}
	}
	return td
}
