package policy

// Met is what holds at one endpoint of a server.
type Met struct {
	Endpoint string // its name
	Server   Mode
	Client   TLS
	Verdict  Verdict
	Symptom  Symptom // on Conflict
}

// Even tells whether all endpoints behind the server are alike, or one was
// asked for: then the Decision holds for each, and for a server without any.
func (d Decision) Even() bool {
	if d.snapshot == nil || d.query.Server.Endpoint != "" {
		return true
	}
	svc := d.snapshot.find(d.query.Server.Host, d.query.Client.Namespace)
	return svc == nil || len(svc.classes) < 2
}

// Met lists what holds at each endpoint, by name; none when the server has none.
func (d Decision) Met() []Met {
	if d.snapshot == nil {
		return nil
	}
	c, ones := d.byClass()
	if c.svc == nil {
		return nil
	}
	all := make([]Met, 0, len(c.svc.endpoints))
	for i, w := range c.svc.endpoints {
		if name := d.query.Server.Endpoint; name != "" && name != w.name {
			continue
		}
		one := &ones[c.svc.classAt[i]]
		all = append(all, Met{w.name, one.Server, one.Client, one.Verdict, one.Symptom})
	}
	return all
}

// Reach counts the endpoints behind the server, and those of them that the
// client cannot talk to.
func (d Decision) Reach() (failing, all int) {
	if d.snapshot == nil {
		return 0, 0
	}
	c, ones := d.byClass()
	if c.svc == nil {
		return 0, 0
	}
	for i, w := range c.svc.endpoints {
		if name := d.query.Server.Endpoint; name != "" && name != w.name {
			continue
		}
		if all++; ones[c.svc.classAt[i]].Verdict == Conflict {
			failing++
		}
	}
	return failing, all
}

// byClass answers for each class of endpoints.
func (d Decision) byClass() (call, []Decision) {
	c := call{s: d.snapshot, q: d.query, svc: d.snapshot.find(d.query.Server.Host, d.query.Client.Namespace)}
	if c.svc == nil {
		return c, nil
	}
	c.port = c.svc.port(d.query.Server.Port)
	if c.q.Client.Sidecar && c.s.generation != Legacy {
		c.rule = c.search()
		c.tls = c.selectTLS()
	}
	ones := make([]Decision, len(c.svc.classes))
	for i := range c.svc.classes {
		ones[i] = c.answer(Decision{}, &c.svc.classes[i])
	}
	return c, ones
}
