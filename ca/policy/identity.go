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

// Offer is what the client side of a connection offers and expects when it
// opens TLS.
type Offer struct {
	SNI        string
	ALPN       []string // best first
	Identities []string // one of which the server must prove: SPIFFE IDs, or names of a rule
	// Settings are the rule's, which name files; nil where no rule decided. They
	// are not the caller's to change.
	Settings *ClientTLS
}

// Offer tells how the client opens TLS; it is zero where it opens none. An offer
// for ISTIO_MUTUAL without identities means that nobody is behind the service,
// and no server will do.
func (d Decision) Offer() Offer {
	if d.snapshot == nil || d.Client != TLSIstioMutual && d.Client != TLSSimple && d.Client != TLSMutual {
		return Offer{}
	}
	c := d.again()
	if c.svc == nil {
		return Offer{}
	}
	o := Offer{Settings: c.tls.settings}
	settings := cmp.Or(c.tls.settings, &ClientTLS{})
	o.SNI, o.Identities = settings.SNI, slices.Clone(settings.SubjectAltNames)
	if d.Client != TLSIstioMutual {
		return o
	}
	o.SNI = cmp.Or(settings.SNI, fmt.Sprintf("outbound_.%d_.%s_.%s", d.query.Server.Port, d.query.Server.Subset, c.svc.host))
	o.ALPN = c.alpn()
	if len(o.Identities) == 0 {
		o.Identities = c.accounts()
	}
	return o
}

// again asks the decision's question once more, for those who want more than the
// verdict; svc is nil where nobody declares the server.
func (d Decision) again() call {
	c := call{s: d.snapshot, q: d.query, svc: d.snapshot.find(d.query.Server.Host, d.query.Client.Namespace)}
	if c.svc == nil {
		return c
	}
	c.port = c.svc.port(d.query.Server.Port)
	if d.query.Client.Sidecar && d.snapshot.generation != Legacy {
		c.rule = c.search()
		c.tls = c.selectTLS()
	}
	return c
}

// alpn is what today's sidecars offer for mesh TLS. Release 0.5 offered none.
func (x *call) alpn() []string {
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
func (x *call) accounts() (ids []string) {
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
func (x *call) trustDomain() spiffeid.TrustDomain {
	td, err := spiffeid.TrustDomainFromString(x.s.mesh.trustDomain)
	if err != nil {
		return spiffeid.TrustDomain{}
	}
	return td
}
