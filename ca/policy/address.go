package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
)

// Place is what an address and a port lead to: a port of a service, and the
// workload where the address is a workload's.
type Place struct {
	Namespace string // of the object that declares the host
	Host      string
	Port      int32  // the service port
	Endpoint  string // as Server.Endpoint; empty for the address of a service
	ByName    bool   // the address only stands for the host: nobody is there
}

// Places lists what stands at an address, by namespace, host and port: the
// service whose address it is, whether it declares the port or not, and each
// service port behind which a workload of that address listens on the port.
func (s *Snapshot) Places(at netip.AddrPort) (all []Place) {
	addr := at.Addr().Unmap()
	for _, ns := range s.namespaces {
		index := ns.index()
		for _, svc := range index.services[addr] {
			all = append(all, Place{ns.name, svc.host, int32(at.Port()), "", svc.byName()})
		}
		for i := range index.ranges {
			if r := &index.ranges[i]; r.prefix.Contains(addr) {
				all = append(all, Place{ns.name, r.service.host, int32(at.Port()), "", r.service.byName()})
			}
		}
		for _, e := range index.endpoints[addr] {
			for i := range e.service.ports {
				if p := &e.service.ports[i]; e.workload.portOf(p) == int32(at.Port()) {
					all = append(all, Place{ns.name, e.service.host, p.number, e.workload.name, false})
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b Place) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Endpoint, b.Endpoint))
	})
	return all
}

// Named lists the service ports of a namespace behind which a port may stand of
// workloads that are known by a name instead of an address: any host may be one.
func (s *Snapshot) Named(namespace string, port uint16) (all []Place) {
	ns := s.namespaces[namespace]
	if ns == nil {
		return nil
	}
	for _, e := range ns.index().named {
		for i := range e.service.ports {
			if p := &e.service.ports[i]; e.workload.portOf(p) == int32(port) {
				all = append(all, Place{ns.name, e.service.host, p.number, e.workload.name, false})
			}
		}
	}
	return all
}

// Workload is what has an address of its own: a Pod, or a WorkloadEntry.
type Workload struct {
	Ref     Ref
	Labels  map[string]string // not the caller's to change
	Sidecar bool
}

// Workloads lists the Pods and WorkloadEntries of a namespace that have an
// address.
func (s *Snapshot) Workloads(namespace string, addr netip.Addr) (all []Workload) {
	ns := s.namespaces[namespace]
	if ns == nil {
		return nil
	}
	for _, w := range ns.index().workloads[addr.Unmap()] {
		all = append(all, Workload{w.ref, w.labels, w.sidecar})
	}
	return all
}

// Uniform tells whether the client does the same to each endpoint behind the
// server that was asked for, so that it does not matter who picks one.
func (d Decision) Uniform() bool {
	if d.snapshot == nil {
		return true
	}
	c := d.again()
	if c.svc == nil || d.query.Server.Endpoint != "" {
		return true
	}
	for i := range c.svc.classes {
		if tls, _ := c.client(&c.svc.classes[i]); tls != d.Client {
			return false
		}
	}
	return true
}

// places are the addresses of a namespace.
type places struct {
	once      sync.Once
	services  map[netip.Addr][]*service
	ranges    []addressRange
	endpoints map[netip.Addr][]endpointOf
	named     []endpointOf // whose address is a name
	workloads map[netip.Addr][]*workload
}

type addressRange struct {
	prefix  netip.Prefix
	service *service
}

type endpointOf struct {
	service  *service
	workload *workload
}

// index is made at the first question after a change, for most snapshots are
// asked by name alone.
func (n *namespace) index() *places {
	n.places.once.Do(func() { n.places.fill(n) })
	return n.places
}

func (p *places) fill(n *namespace) {
	p.services = map[netip.Addr][]*service{}
	p.endpoints = map[netip.Addr][]endpointOf{}
	p.workloads = make(map[netip.Addr][]*workload, len(n.pods))
	for _, services := range [][]*service{n.services, n.foreign} {
		for _, s := range services {
			for _, text := range s.addresses() {
				if addr, err := netip.ParseAddr(text); err == nil {
					p.services[addr.Unmap()] = append(p.services[addr.Unmap()], s)
				} else if prefix, err := netip.ParsePrefix(text); err == nil {
					p.ranges = append(p.ranges, addressRange{prefix.Masked(), s})
				}
			}
			for _, w := range s.endpoints {
				found := false
				w.eachAddress(func(addr netip.Addr) { p.endpoints[addr], found = append(p.endpoints[addr], endpointOf{s, w}), true })
				if !found && w.address() != "" {
					p.named = append(p.named, endpointOf{s, w})
				}
			}
		}
	}
	for _, w := range n.pods {
		w.eachAddress(func(addr netip.Addr) { p.workloads[addr] = append(p.workloads[addr], w) })
	}
}

// addresses are those of the service itself.
func (s *service) addresses() []string {
	switch o := s.object.(type) {
	case *Service:
		if len(o.Spec.ClusterIPs) > 0 {
			return o.Spec.ClusterIPs
		}
		return []string{o.Spec.ClusterIP}
	case *ServiceEntry:
		return o.Spec.Addresses
	}
	return nil
}

// byName tells whether the service's own addresses only stand for its host.
func (s *service) byName() bool {
	e, is := s.object.(*ServiceEntry)
	return is && e.Spec.Resolution > ResolutionStatic
}

func (w *workload) eachAddress(yield func(netip.Addr)) {
	for _, text := range w.addresses {
		if addr, err := netip.ParseAddr(text); err == nil {
			yield(addr.Unmap())
		}
	}
}

// address is the first, empty when none is known.
func (w *workload) address() string {
	if len(w.addresses) == 0 {
		return ""
	}
	return w.addresses[0]
}

func (p *Pod) addresses() (all []string) {
	for _, ip := range p.Status.IPs {
		all = append(all, ip.IP)
	}
	if len(all) == 0 && p.Status.IP != "" {
		all = []string{p.Status.IP}
	}
	return all
}
