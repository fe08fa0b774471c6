package policy

import (
	"slices"
	"strings"
)

// Query asks about one connection.
type Query struct {
	Client Client `yaml:"client"`
	Server Server `yaml:"server"`
}

// Client is who connects.
type Client struct {
	Namespace      string            `yaml:"namespace"`
	ServiceAccount string            `yaml:"serviceAccount"`
	Sidecar        bool              `yaml:"sidecar"` // it has a proxy that heeds rules
	Labels         map[string]string `yaml:"labels"`  // for rules that choose their clients
}

// Server is where to. Subset and Endpoint are empty unless something has chosen
// one: a route the subset, a balancer the Pod.
type Server struct {
	Host     string `yaml:"host"` // FQDN
	Port     int32  `yaml:"port"` // of the service
	Subset   string `yaml:"subset"`
	Endpoint string `yaml:"endpoint"`
}

// Decision answers a Query. The zero value denies: its server accepts nothing,
// its client originates nothing, its verdict is Conflict.
type Decision struct {
	Server   Mode
	Client   TLS
	Verdict  Verdict
	Symptom  Symptom // on Conflict
	ServerBy Origin
	ClientBy Origin

	snapshot *Snapshot
	query    Query
}

// Resolve decides. It allocates nothing. A service is judged by all of its
// endpoints when the query names none: one without a sidecar makes it a service
// without; else the worst answer counts, which is a conflict before the
// strictest server.
func (s *Snapshot) Resolve(q Query) Decision {
	d := Decision{snapshot: s, query: q, Symptom: UnknownServer}
	c := call{s: s, q: q, svc: s.find(q.Server.Host, q.Client.Namespace)}
	if c.svc == nil {
		return d
	}
	c.port = c.svc.port(q.Server.Port)
	if q.Client.Sidecar && s.generation != Legacy {
		c.rule = c.search()
		c.tls = c.selectTLS()
	}
	if q.Server.Endpoint != "" {
		if class := c.svc.endpoint(q.Server.Endpoint); class != nil {
			return c.answer(d, class)
		}
		return d
	}
	if plain := c.svc.plain(); plain != nil || len(c.svc.classes) == 0 {
		return c.answer(d, plain)
	}
	for i := range c.svc.classes {
		if next := c.answer(d, &c.svc.classes[i]); i == 0 || next.worse(&d) {
			d = next
		}
	}
	return d
}

// call is one question while it is answered, with what is looked up but once.
type call struct {
	s    *Snapshot
	q    Query
	svc  *service
	port int // index of the service's port, -1 when it is not declared
	rule found
	tls  selected
}

// find is the service of a host, as clients of a namespace see it.
func (s *Snapshot) find(host, client string) *service {
	if name, ok := strings.CutSuffix(host, serviceSuffix); ok {
		if i := strings.IndexByte(name, '.'); i > 0 {
			if ns := s.namespaces[name[i+1:]]; ns != nil {
				if svc := ns.service(name[:i]); svc != nil {
					return svc
				}
			}
		}
	}
	for i := 0; ; i++ {
		list, more := s.foreign.find(host, i)
		if !more {
			return nil
		}
		for _, svc := range list {
			if svc.namespace == client {
				return svc
			}
		}
		if len(list) > 0 {
			return list[0]
		}
	}
}

// service finds a service by name.
func (n *namespace) service(name string) *service {
	low, high := 0, len(n.services)
	for low < high {
		if mid := (low + high) / 2; n.services[mid].name < name {
			low = mid + 1
		} else {
			high = mid
		}
	}
	if low < len(n.services) && n.services[low].name == name {
		return n.services[low]
	}
	return nil
}

// plain is a class of endpoints without a sidecar, nil when there is none.
func (s *service) plain() *class {
	for i := range s.classes {
		if !s.classes[i].sidecar {
			return &s.classes[i]
		}
	}
	return nil
}

// endpoint finds one endpoint's class by its name, nil when there is none.
func (s *service) endpoint(name string) *class {
	i, exists := slices.BinarySearchFunc(s.endpoints, name, func(w *workload, name string) int { return strings.Compare(w.name, name) })
	if !exists {
		return nil
	}
	return &s.classes[s.classAt[i]]
}

// answer fills into d what holds for endpoints of one class, nil when there are
// none.
func (c *call) answer(d Decision, k *class) Decision {
	d.Server, d.ServerBy = c.server(k)
	d.Client, d.ClientBy = c.client(k)
	d.Verdict = verdict(d.Server, d.Client)
	d.Symptom = c.symptom(&d, k)
	return d
}

func (d *Decision) worse(than *Decision) bool {
	if d.Verdict != than.Verdict {
		return d.Verdict < than.Verdict
	}
	return d.Server > than.Server
}

// verdict is the whole table: all others are conflicts.
func verdict(server Mode, client TLS) Verdict {
	switch {
	case client == TLSDisable && server.AcceptsPlainText(),
		client == TLSIstioMutual && (server == Strict || server == Permissive):
		return OK
	}
	return Conflict
}

// server is what the server side accepts, and why.
func (c *call) server(k *class) (Mode, Origin) {
	switch {
	case c.svc.external:
		return Disable, because(External)
	case k == nil || !k.sidecar:
		return Disable, because(NoSidecar)
	}
	switch c.s.generation {
	case Legacy:
		return c.legacyServer()
	case V1Alpha1:
		return c.alphaServer()
	case V1:
		return c.peerServer(k)
	}
	return ModeUnset, Origin{}
}

// client is what the client side originates, and why.
func (c *call) client(k *class) (TLS, Origin) {
	if !c.q.Client.Sidecar {
		return TLSDisable, because(NoSidecar)
	}
	switch c.s.generation {
	case Legacy:
		return c.legacyClient()
	case V1Alpha1, V1:
		if c.tls.tls != TLSUnset {
			return c.tls.tls, c.tls.by
		}
		if c.s.mesh.auto && c.port >= 0 {
			return c.autoClient(k)
		}
		if c.tls.by != (Origin{}) {
			return TLSDisable, c.tls.by
		}
		return TLSDisable, because(ByDefault)
	}
	return TLSUnset, Origin{}
}

// autoClient is what a client does that goes by the server.
func (c *call) autoClient(k *class) (TLS, Origin) {
	if c.svc.external {
		return TLSDisable, because(External)
	}
	speaks := k != nil && k.labelled
	if c.s.generation == V1Alpha1 {
		speaks = speaks && c.alphaAuto()
	} else {
		speaks = c.peerAuto(k, speaks)
	}
	if speaks {
		return TLSIstioMutual, because(AutoMTLS)
	}
	return TLSDisable, because(AutoMTLS)
}

// symptom is how a conflict shows.
func (c *call) symptom(d *Decision, k *class) Symptom {
	https := c.q.Server.Port == 443 // what people call with https
	protocol := ""
	if c.port >= 0 {
		protocol = c.svc.ports[c.port].protocol
	}
	foreignTLS := d.Client == TLSSimple || d.Client == TLSMutual
	switch {
	case d.Verdict == OK:
		return ""
	case !c.q.Client.Sidecar && https, d.Server == Disable && d.Client == TLSIstioMutual && https && !c.svc.external:
		return CurlExit35
	case !c.q.Client.Sidecar:
		return CurlExit56
	case foreignTLS && c.svc.external:
		return DependsOnServer
	case foreignTLS && k != nil && k.sidecar && (d.Server == Disable || d.Server == Permissive && c.s.generation == V1Alpha1):
		return TLSPassthrough
	case protocol == "tcp" || protocol == "mongo" || protocol == "redis" || protocol == "mysql":
		return ConnectionReset
	}
	return HTTP503
}
