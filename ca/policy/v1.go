package policy

// wide is what a namespace and the mesh say to all workloads of a namespace.
func (s *Snapshot) wide(name string) (Mode, Origin) {
	mode, origin := Permissive, because(ByDefault)
	for _, level := range [2]string{s.mesh.root, name} {
		if ns := s.namespaces[level]; ns != nil && ns.wide != nil {
			if m := ns.wide.mode(); m != ModeUnset {
				mode, origin = m, by(ns.wide.Ref())
			}
		}
	}
	return mode, origin
}

// peerServer is what a workload accepts on the port behind the service's: port,
// workload, namespace, mesh, in this order the first that says something.
// Selectors in the root namespace choose nothing.
func (c *call) peerServer(k *class) (Mode, Origin) {
	mode, origin := c.s.wide(c.svc.namespace)
	if k.peer == nil || c.svc.namespace == c.s.mesh.root {
		return mode, origin
	}
	if m := k.peer.mode(); m != ModeUnset {
		mode, origin = m, by(k.peer.Ref())
	}
	number := c.q.Server.Port // of no service: the workload's own
	if c.port >= 0 {
		number = k.ports[c.port]
	}
	if m := k.peer.Spec.PortLevelMTLS[uint32(number)].Mode; m != ModeUnset && number > 0 {
		mode, origin = m, by(k.peer.Ref())
		origin.Port = number
	}
	return mode, origin
}

// peerAuto tells whether today's client opens mTLS by itself. Its quirks are
// those of the mesh: a namespace that disables mTLS hides a workload that wants
// it, and clients of headless services see neither workloads nor ports.
func (c *call) peerAuto(k *class, speaks bool) bool {
	original := c.svc.headless || c.tls.passthrough
	if original && !c.svc.labelled {
		return false
	}
	if mode, _ := c.s.wide(c.svc.namespace); mode == Disable {
		return false
	}
	if original {
		return true
	}
	if !speaks {
		return false
	}
	mode, _ := c.peerServer(k)
	return mode != Disable
}

// selected is what the rule says about TLS. TLSUnset leaves it to others; by is
// zero when there is no rule.
type selected struct {
	tls         TLS
	by          Origin
	settings    *ClientTLS
	passthrough bool // the connection goes where it was addressed
}

// selectTLS reads the rule. An entry for the port replaces what stands above it,
// even when it says nothing of TLS.
func (c *call) selectTLS() selected {
	if c.rule.head == nil || c.port < 0 {
		return selected{}
	}
	policy, owner := c.policy(c.rule)
	top := upper{policy, by(owner.Ref())}
	base := selected{by: top.by}
	base.take(policy, c.q.Server.Port)
	if c.q.Server.Subset == "" {
		return c.inherit(base, top)
	}
	subset, owner := c.subset(c.rule, c.q.Server.Subset)
	if subset == nil || subset.TrafficPolicy == nil {
		return c.inherit(base, top)
	}
	own := selected{by: by(owner.Ref()), passthrough: base.passthrough}
	own.by.Subset = subset.Name
	own.take(subset.TrafficPolicy, c.q.Server.Port)
	switch replaced := own.by.Port != 0; {
	case own.settings != nil:
		return own
	case replaced && c.s.generation == V1:
		return c.inherit(own, top)
	}
	base.passthrough = own.passthrough
	return c.inherit(base, top)
}

// take reads one traffic policy for one port.
func (s *selected) take(t *TrafficPolicy, port int32) {
	if t == nil {
		return
	}
	settings := &t.PortPolicy
	if entry := t.port(port); entry != nil {
		settings, s.by.Port = entry, port
	}
	if s.settings = settings.TLS; s.settings != nil {
		s.tls = s.settings.mode()
	}
	if settings.LoadBalancer != nil {
		s.passthrough = settings.LoadBalancer.Simple == Passthrough
	}
}

// upper is a rule's own traffic policy, and whose it is.
type upper struct {
	*TrafficPolicy
	by Origin
}

// inherit is the quirk of an entry for a port that has no TLS under a policy
// that has: clients with automatic mTLS take the upper one for mesh TLS and for
// plain text, and open plain text in place of any other.
func (c *call) inherit(s selected, top upper) selected {
	if c.s.generation != V1 || !c.s.mesh.auto || s.settings != nil || s.by.Port == 0 || top.TrafficPolicy == nil || top.TLS == nil {
		return s
	}
	s.tls, s.by = TLSDisable, top.by
	if top.TLS.mode() == TLSIstioMutual {
		s.tls, s.settings = TLSIstioMutual, top.TLS
	}
	return s
}
