package policy

import "net/netip"

// Unlisted is what a port of a workload demands behind which no service port is
// known to stand, if policy speaks of it: a PeerAuthentication that chooses the
// workload may name the port itself, and a Service without a selector may lead
// there, whose endpoints others write. The strictest counts; ModeUnset is for a
// port of which policy does not speak.
func (s *Snapshot) Unlisted(namespace string, addr netip.Addr, port uint16) (mode Mode, origin Origin) {
	ns := s.namespaces[namespace]
	if ns == nil {
		return ModeUnset, Origin{}
	}
	demand := func(m Mode, by Origin) {
		if m > mode {
			mode, origin = m, by
		}
	}
	for _, w := range ns.index().workloads[addr.Unmap()] {
		k := &class{sidecar: true, peer: ns.peerOf(w)}
		c := &call{s: s, svc: &service{namespace: namespace}, port: -1, q: Query{Server: Server{Port: int32(port)}}}
		if m, by := c.peerServer(k); s.generation == V1 && by.Port != 0 {
			demand(m, by)
		}
		for _, svc := range ns.services {
			for i := range svc.ports {
				if !svc.leads(i, int32(port)) {
					continue
				}
				k.ports = make([]int32, len(svc.ports))
				k.ports[i] = int32(port)
				c := &call{s: s, svc: svc, port: i, q: Query{Server: Server{Host: svc.host, Port: svc.ports[i].number}}}
				demand(c.server(k))
			}
		}
	}
	return mode, origin
}

// leads tells whether a port of a Service without a selector may lead to a port of
// workloads.
func (s *service) leads(i int, port int32) bool {
	_, is := s.object.(*Service)
	return is && len(s.selector) == 0 && !s.externalName && s.ports[i].target.Number == port && s.ports[i].over.is("TCP")
}
