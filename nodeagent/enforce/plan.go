package enforce

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/policy"
)

// self is who this host is in the eyes of policy.
type self struct {
	namespace, account string
	addresses          []netip.Addr
	labels             map[string]string
}

// selfOf reads the namespace and service account out of an SVID's ID; the zero
// self is nobody's.
func selfOf(id spiffeid.ID) (s self) {
	parts := strings.Split(strings.TrimPrefix(id.Path(), "/"), "/")
	if len(parts) == 4 && parts[0] == "ns" && parts[2] == "sa" {
		s.namespace, s.account = parts[1], parts[3]
	}
	return s
}

// labelsOf are those of this host's workload, for rules that choose their
// clients.
func labelsOf(s *policy.Snapshot, me self) map[string]string {
	if s == nil {
		return nil
	}
	for _, addr := range me.addresses {
		for _, w := range s.Workloads(me.namespace, addr) {
			return w.Labels
		}
	}
	return nil
}

// served is what a port of this host demands of who comes.
type served struct {
	mode    policy.Mode // ModeUnset where open
	open    bool        // no service port: policy does not speak of it
	service string      // HOST:PORT
	by      string
	// unmarked: policy takes the workload for one without a proxy.
	unmarked bool
	fix      string // what would let clients without a certificate in; empty where they are
}

// servedAt is how to serve those who come to an address of this host. expected
// says that the operator calls it a service port; then policy must know it.
func servedAt(s *policy.Snapshot, me self, at netip.AddrPort, expected bool) served {
	if s == nil {
		return served{mode: policy.Strict, by: "there is no policy yet"}
	}
	known, answer := false, served{}
	places := s.Named(me.namespace, at.Port())
	for _, addr := range me.at(at.Addr()) {
		known = known || len(s.Workloads(me.namespace, addr)) > 0
		places = append(places, s.Places(netip.AddrPortFrom(addr, at.Port()))...)
	}
	for _, p := range places {
		if p.Endpoint == "" {
			continue
		}
		one := servedBy(s, me, policy.Server{Host: p.Host, Port: p.Port, Endpoint: p.Endpoint})
		if p.Namespace == me.namespace || !one.unmarked { // others may call it a server of the mesh, not one that lacks a proxy
			answer = stricter(answer, one)
		}
	}
	switch {
	case answer.mode != policy.ModeUnset:
		return answer
	case !known:
		return served{mode: policy.Strict, by: fmt.Sprintf("policy knows no workload at %s in namespace %q", at.Addr(), me.namespace),
			fix: "declare this host by a WorkloadEntry with its address, or name the address that policy knows in enforce.addresses"}
	case expected:
		return served{mode: policy.Strict, by: fmt.Sprintf("no Service or ServiceEntry declares port %d of this workload", at.Port()),
			fix: "declare the port by a ServiceEntry whose workloadSelector selects this host's WorkloadEntry, or say in service which one is meant"}
	}
	for _, addr := range me.at(at.Addr()) {
		if mode, by := s.Unlisted(me.namespace, addr, at.Port()); mode != policy.ModeUnset {
			answer = stricter(answer, served{mode: mode, by: by.String()})
		}
	}
	if answer.mode != policy.ModeUnset {
		return answer
	}
	return served{open: true, by: "no service port"}
}

// servedFor is the same where the operator named the service: the workload is the
// endpoint with that address.
func servedFor(s *policy.Snapshot, me self, host string, port int32, at netip.Addr) served {
	if s == nil {
		return served{mode: policy.Strict, by: "there is no policy yet", service: hostPort(host, port)}
	}
	answer := served{service: hostPort(host, port)}
	server, _, known := serverOf(s, me, Target{Host: host, Port: uint16(port)})
	for _, e := range s.Resolve(policy.Query{Client: policy.Client{Namespace: me.namespace}, Server: server}).Endpoints() {
		if addr, err := netip.ParseAddr(e.Address); err == nil && slices.Contains(me.at(at), addr.Unmap()) {
			server.Endpoint = e.Name
			answer = stricter(answer, servedBy(s, me, server))
		}
	}
	if !known {
		answer.mode, answer.by = policy.Strict, fmt.Sprintf("policy knows no service %s", host)
		answer.fix = "declare it by a Service or a ServiceEntry, or mend key service of the listener"
	}
	if answer.mode == policy.ModeUnset {
		answer.mode, answer.by = policy.Strict, fmt.Sprintf("policy knows no endpoint of %s at %s", host, at)
		answer.fix = "declare this host by a WorkloadEntry that the service selects, or name the address that policy knows in enforce.addresses"
	}
	return answer
}

// at are the addresses by which policy may know who was called at one of them.
func (me self) at(addr netip.Addr) []netip.Addr {
	return append(slices.Clip(me.addresses), addr.Unmap())
}

func servedBy(s *policy.Snapshot, me self, server policy.Server) served {
	d := s.Resolve(policy.Query{Client: policy.Client{Namespace: me.namespace}, Server: server})
	answer := served{mode: d.Server, by: d.ServerBy.String(), service: hostPort(server.Host, server.Port), fix: d.Fix()}
	switch {
	case d.ServerBy.Reason == policy.NoSidecar:
		// The proxy is here, whatever the object says: it must not be the laxer for it.
		answer.unmarked = true
		answer.mode, answer.by = policy.Strict, fmt.Sprintf("policy takes %s for a workload without a proxy: it needs the label security.istio.io/tlsMode: istio", server.Endpoint)
	case answer.mode == policy.ModeUnset:
		answer.mode, answer.by = policy.Strict, "policy does not say"
	}
	return answer
}

func stricter(a, b served) served {
	if b.mode > a.mode {
		return b
	}
	return a
}

func hostPort(host string, port int32) string {
	return net.JoinHostPort(host, strconv.Itoa(int(port)))
}

// Target is where a program wants to go: a name, an address, or an address that
// a name was resolved to elsewhere.
type Target struct {
	Host string // empty where only the address is known
	Addr netip.Addr
	Port uint16

	redirected bool // a connection to it was led here
}

// String is HOST:PORT.
func (t Target) String() string {
	if t.Host != "" {
		return net.JoinHostPort(t.Host, strconv.Itoa(int(t.Port)))
	}
	return netip.AddrPortFrom(t.Addr, t.Port).String()
}

// route is how to carry a connection to its target.
type route struct {
	service  string // HOST:PORT; empty for what policy does not know
	declared bool   // and its port, too
	hops     []hop  // to be tried in turn; of several, each connection begins at another
	byName   Target // the same by its endpoints, where hops leave the choice to whoever made an address; else zero
	refused  failure
	began    atomic.Uint32 // connections that took the route
}

// hop is one way to the target.
type hop struct {
	address  string // HOST:PORT to dial
	decision policy.Decision
	offer    policy.Offer
	own      bool // an address of this host
}

// is tells whether an address is this host's own.
func (me self) is(address string) bool {
	addr, err := netip.ParseAddr(address)
	return err == nil && slices.Contains(me.addresses, addr.Unmap())
}

// conflict tells whether policy itself has client and server disagree.
func (h *hop) conflict() bool {
	return h != nil && h.decision.Query().Server.Host != "" && h.decision.Verdict == policy.Conflict
}

// routeTo finds the way to a target.
func routeTo(s *policy.Snapshot, me self, to Target) *route {
	if s == nil {
		return &route{refused: failure{NoPolicy, fmt.Errorf("there is no policy yet, and without one nobody may be called")}}
	}
	client := policy.Client{Namespace: me.namespace, ServiceAccount: me.account, Sidecar: true, Labels: me.labels}
	server, direct, known := serverOf(s, me, to)
	if !known {
		return &route{hops: []hop{{address: to.String()}}}
	}
	query := policy.Query{Client: client, Server: server}
	d := s.Resolve(query)
	object, declared := d.Declares()
	r := &route{service: hostPort(server.Host, server.Port), declared: declared}
	led := object.Kind == policy.KindService && to.Addr.IsValid() && d.Uniform()
	if server.Endpoint != "" || led { // whoever made the address picks the endpoint
		r.hops = []hop{{address: direct, decision: d, offer: d.Offer(), own: to.Addr.IsValid() && slices.Contains(me.addresses, to.Addr)}}
		if server.Endpoint == "" {
			r.byName = Target{Host: server.Host, Port: to.Port}
		}
		return r
	}
	for _, e := range d.Endpoints() {
		if e.Address == "" || e.Port == 0 {
			continue
		}
		query.Server.Endpoint = e.Name
		one := s.Resolve(query)
		r.hops = append(r.hops, hop{address: hostPort(e.Address, e.Port), decision: one, offer: one.Offer(), own: me.is(e.Address)})
	}
	if len(r.hops) == 0 { // nobody is known: the name, or the address, must do
		r.hops = []hop{{address: direct, decision: d, offer: d.Offer()}}
	}
	return r
}

// serverOf is the service that a target means, and where it is to be found when
// none of its endpoints is known.
func serverOf(s *policy.Snapshot, me self, to Target) (server policy.Server, direct string, known bool) {
	direct = to.String()
	if to.Addr.IsValid() {
		direct = netip.AddrPortFrom(to.Addr, to.Port).String()
	}
	for _, host := range hostsOf(to.Host, me.namespace) {
		server = policy.Server{Host: host, Port: int32(to.Port)}
		if ref, _ := s.Resolve(policy.Query{Client: policy.Client{Namespace: me.namespace}, Server: server}).Declares(); ref != (policy.Ref{}) {
			return server, direct, true
		}
	}
	if !to.Addr.IsValid() {
		return policy.Server{}, direct, false
	}
	places := s.Places(netip.AddrPortFrom(to.Addr, to.Port))
	if len(places) == 0 {
		return policy.Server{}, direct, false
	}
	p := slices.MinFunc(places, func(a, b policy.Place) int { return cmp.Compare(rank(s, me, a), rank(s, me, b)) })
	if p.ByName && !strings.HasPrefix(p.Host, "*") {
		direct = hostPort(p.Host, p.Port)
	}
	return policy.Server{Host: p.Host, Port: p.Port, Endpoint: p.Endpoint}, direct, true
}

// rank orders what an address may mean: a service that declares the port, an
// endpoint, a service that does not.
func rank(s *policy.Snapshot, me self, p policy.Place) int {
	if p.Endpoint != "" {
		return 1
	}
	server := policy.Server{Host: p.Host, Port: p.Port}
	if _, declared := s.Resolve(policy.Query{Client: policy.Client{Namespace: me.namespace}, Server: server}).Declares(); declared {
		return 0
	}
	return 2
}

// hostsOf are the names that a name may mean in a namespace, as resolv.conf of
// Kubernetes has it.
func hostsOf(host, namespace string) []string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	switch dots := strings.Count(host, "."); {
	case host == "":
		return nil
	case dots == 0:
		return []string{host, host + "." + namespace + ".svc." + policy.ClusterDomain}
	case dots == 1:
		return []string{host, host + ".svc." + policy.ClusterDomain}
	case dots == 2 && strings.HasSuffix(host, ".svc"):
		return []string{host, host + "." + policy.ClusterDomain}
	}
	return []string{host}
}

// plans remembers what was found in one snapshot, for all connections that go by
// it.
type plans struct {
	policy    func() *policy.Snapshot
	addresses func() []netip.Addr
	now       atomic.Pointer[planned]
	turn      atomic.Uint64
}

// planned is what was found in one snapshot for one identity.
type planned struct {
	snapshot *policy.Snapshot
	id       spiffeid.ID
	turn     uint64
	me       self
	served   sync.Map // by servedKey: served
	routes   sync.Map // by Target: *route
	size     atomic.Int64
}

// mostPlanned bounds what is remembered: programs may call any number of
// addresses.
const mostPlanned = 20_000

// forget has all be found anew.
func (p *plans) forget() { p.turn.Add(1) }

// of is what is known for the policy and the identity of now.
func (p *plans) of(id spiffeid.ID) *planned {
	turn, snapshot, now := p.turn.Load(), p.policy(), p.now.Load()
	if now != nil && now.turn == turn && now.snapshot == snapshot && now.id == id && now.size.Load() < mostPlanned {
		return now
	}
	now = &planned{snapshot: snapshot, id: id, turn: turn, me: selfOf(id)}
	if p.addresses != nil {
		now.me.addresses = p.addresses()
	}
	now.me.labels = labelsOf(snapshot, now.me)
	p.now.Store(now)
	return now
}

type servedKey struct {
	at       netip.AddrPort
	expected bool
	host     string
	port     int32
}

func (p *planned) serve(key servedKey) served {
	if found, has := p.served.Load(key); has {
		return found.(served)
	}
	var answer served
	if key.host != "" {
		answer = servedFor(p.snapshot, p.me, key.host, key.port, key.at.Addr())
	} else {
		answer = servedAt(p.snapshot, p.me, key.at, key.expected)
	}
	p.size.Add(1)
	p.served.Store(key, answer)
	return answer
}

// route finds the way to a target.
func (p *planned) route(to Target) *route {
	if found, has := p.routes.Load(to); has {
		return found.(*route)
	}
	p.size.Add(1)
	r, _ := p.routes.LoadOrStore(to, routeTo(p.snapshot, p.me, to))
	return r.(*route)
}
