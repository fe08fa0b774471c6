// Package dns is the cluster's DNS for tests: it answers for services, by what the
// API server holds, in the way of the Kubernetes DNS specification (sections 2.3
// and 2.4), as far as addresses go.
//
// It refuses the world outside the cluster: a test that needs it is no test.
// There is neither cache nor forwarding, and no PTR or SRV records.
package dns

import (
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// lifetime of records in seconds: pods ask again soon, for nothing is cached here.
const lifetime = 5

// service is what is known of one by its name.
type service struct {
	address  netip.Addr              // of the cluster; zero when it has none
	external string                  // a name elsewhere, for ExternalName
	ready    []netip.Addr            // endpoints of one without an address
	hosts    map[string][]netip.Addr // the same by host name
}

// zone finds services.
type zone interface {
	find(namespace, name string) (service, bool)
}

// answer decides on one question. Domain ends with a dot.
func answer(z zone, domain string, q dnsmessage.Question) ([]dnsmessage.Resource, dnsmessage.RCode) {
	name := strings.ToLower(q.Name.String())
	inside, ok := strings.CutSuffix(name, ".svc."+domain)
	if !ok || q.Class != dnsmessage.ClassINET {
		return nil, dnsmessage.RCodeNameError
	}
	labels := strings.Split(inside, ".")
	if len(labels) < 2 || len(labels) > 3 {
		return nil, dnsmessage.RCodeNameError
	}
	last := len(labels) - 1
	s, ok := z.find(labels[last], labels[last-1])
	if !ok {
		return nil, dnsmessage.RCodeNameError
	}
	addresses := s.ready
	if s.address.IsValid() {
		addresses = []netip.Addr{s.address}
	}
	if len(labels) == 3 {
		if addresses, ok = s.hosts[labels[0]]; !ok || s.address.IsValid() {
			return nil, dnsmessage.RCodeNameError
		}
	}
	return records(q, s.external, addresses), dnsmessage.RCodeSuccess
}

// records are those of the type that is asked for.
func records(q dnsmessage.Question, external string, addresses []netip.Addr) []dnsmessage.Resource {
	header := func(t dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: q.Name, Type: t, Class: dnsmessage.ClassINET, TTL: lifetime}
	}
	if external != "" {
		target, err := dnsmessage.NewName(strings.TrimSuffix(external, ".") + ".")
		if err != nil {
			return nil
		}
		return []dnsmessage.Resource{{Header: header(dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: target}}}
	}
	var all []dnsmessage.Resource
	for _, a := range addresses {
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			all = append(all, dnsmessage.Resource{Header: header(q.Type), Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			all = append(all, dnsmessage.Resource{Header: header(q.Type), Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	return all
}

// reply is the message that goes back for one that came; nil when it is no
// question. One that would be too long for UDP is cut, and says so.
func reply(z zone, domain string, message []byte, limit int) []byte {
	var parser dnsmessage.Parser
	asked, err := parser.Start(message)
	if err != nil || asked.Response {
		return nil
	}
	header := dnsmessage.Header{ID: asked.ID, Response: true, OpCode: asked.OpCode, Authoritative: true, RecursionDesired: asked.RecursionDesired}
	q, err := parser.Question()
	if err != nil || asked.OpCode != 0 {
		header.RCode = dnsmessage.RCodeFormatError
		return packed(dnsmessage.Message{Header: header}, limit)
	}
	answers, code := answer(z, domain, q)
	header.RCode = code
	return packed(dnsmessage.Message{Header: header, Questions: []dnsmessage.Question{q}, Answers: answers}, limit)
}

func packed(m dnsmessage.Message, limit int) []byte {
	text, err := m.Pack()
	if err == nil && len(text) <= limit {
		return text
	}
	m.Answers, m.Truncated = nil, true
	text, err = m.Pack()
	if err != nil {
		return nil
	}
	return text
}
