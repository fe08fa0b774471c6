package policy

// alphaServer is what a service's port accepts: the first policy that fits is
// the whole answer, and none means plain text. A policy that admission would
// have refused for its name counts only where it makes the answer stricter.
func (c *call) alphaServer() (Mode, Origin) {
	var mode Mode
	var origin Origin
	consider := func(p *authPolicy) (last bool) {
		if p.mode > mode {
			mode, origin = p.mode, by(p.Ref())
		}
		return !p.misnamed
	}
	if ns := c.s.namespaces[c.svc.namespace]; ns != nil && c.port >= 0 {
		for _, p := range ns.targeted[c.svc.name] {
			if c.targets(p) && consider(p) {
				return mode, origin
			}
		}
		for _, p := range ns.whole {
			if consider(p) {
				return mode, origin
			}
		}
	}
	if p := c.s.meshPolicy["default"]; p != nil && c.port >= 0 && c.s.usable(p) {
		if m := p.Spec.mode(); m > mode {
			mode, origin = m, by(p.Ref())
		}
		return mode, origin
	}
	if mode == ModeUnset {
		return Disable, because(ByDefault)
	}
	return mode, origin
}

// usable tells whether a MeshPolicy passed validation.
func (s *Snapshot) usable(p *MeshPolicy) bool { return sound(s.problems[p.Ref()]) }

// targets tells whether one of a policy's targets is this port of this service.
func (c *call) targets(p *authPolicy) bool {
	at := &c.svc.ports[c.port]
	for i := range p.Spec.Targets {
		t := &p.Spec.Targets[i]
		if t.Name != c.svc.name {
			continue
		}
		if len(t.Ports) == 0 {
			return true
		}
		for _, port := range t.Ports {
			if port.Number != nil && *port.Number == at.number || port.Number == nil && port.Name == at.name {
				return true
			}
		}
	}
	return false
}

// alphaAuto tells whether release 1.4 opens mTLS by itself to an endpoint that
// speaks it.
func (c *call) alphaAuto() bool {
	mode, _ := c.alphaServer()
	return mode != Disable && !c.svc.headless
}
