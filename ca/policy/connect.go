package policy

import (
	"cmp"
	"slices"
)

// pair is one label.
type pair struct{ key, value string }

// pairs is a selector, sorted; nil chooses whatever there is.
type pairs []pair

func newPairs(labels map[string]string) (all pairs) {
	for k, v := range labels {
		all = append(all, pair{k, v})
	}
	slices.SortFunc(all, func(a, b pair) int { return cmp.Compare(a.key, b.key) })
	return all
}

// in tells whether all pairs are among labels.
func (p pairs) in(labels map[string]string) bool {
	for i := range p {
		if got, has := labels[p[i].key]; !has || got != p[i].value {
			return false
		}
	}
	return true
}

// connect finds the endpoints of the services that a change may have touched.
func (n *namespace) connect(before *namespace, c *change) {
	touched := n.touched(before, c)
	byLabel := map[pair][]*workload{}
	count := 0
	for _, list := range [][]*service{n.services, n.foreign} {
		for _, s := range list {
			if touched(s) {
				count++
			}
		}
	}
	same := len(c.pods)+len(c.services)+len(c.foreign) == 0
	if count > 4 && !same { // else reading all workloads is less work than sorting them
		for _, w := range n.pods {
			for k, v := range w.labels {
				byLabel[pair{k, v}] = append(byLabel[pair{k, v}], w)
			}
		}
	}
	renew := func(old []*service) []*service {
		next := slices.Clone(old)
		for i, s := range old {
			if touched(s) {
				next[i] = s
				if !same {
					next[i] = n.connected(s, byLabel)
				}
				next[i] = n.classified(next[i])
			}
		}
		return next
	}
	if count > 0 {
		n.services, n.foreign = renew(n.services), renew(n.foreign)
	}
	if len(c.services) > 0 {
		n.annotated = 0
		for _, s := range n.services {
			if s.annotated() {
				n.annotated++
			}
		}
	}
}

// touched returns a test: whether the endpoints of a service, or what holds for
// them, may be others than before.
func (n *namespace) touched(before *namespace, c *change) func(*service) bool {
	changed := map[Ref]bool{}
	for _, d := range append(slices.Clip(c.services), c.foreign...) {
		changed[d.ref] = true
	}
	gone, come := differ(before.pods, n.pods, c.pods)
	workloads := append(gone, come...)
	goneP, comeP := differ(before.peers, n.peers, c.peers)
	peers := slices.DeleteFunc(append(goneP, comeP...), func(p *peerPolicy) bool { return p.chooses == nil })
	return func(s *service) bool {
		return changed[s.ref] ||
			len(s.selector) > 0 && slices.ContainsFunc(workloads, func(w *workload) bool { return s.selector.in(w.labels) }) ||
			len(peers) > 0 && slices.ContainsFunc(s.endpoints, func(w *workload) bool {
				return slices.ContainsFunc(peers, func(p *peerPolicy) bool { return p.chooses.in(w.labels) })
			})
	}
}

// connected returns a service with its endpoints. byLabel is empty when nobody
// has made it.
func (n *namespace) connected(s *service, byLabel map[pair][]*workload) *service {
	next := *s
	next.endpoints = slices.Clone(s.inline)
	if len(s.selector) > 0 {
		for _, w := range n.candidates(s.selector, byLabel) {
			if s.selector.in(w.labels) {
				next.endpoints = append(next.endpoints, w)
			}
		}
	}
	if len(s.inline) > 0 {
		slices.SortStableFunc(next.endpoints, func(a, b *workload) int { return cmp.Compare(a.name, b.name) })
	}
	return &next
}

// classified returns a service whose endpoints are in classes.
func (n *namespace) classified(s *service) *service {
	next := *s
	next.classes, next.classAt, next.labelled = nil, make([]int32, len(s.endpoints)), len(s.endpoints) > 0
	for i, w := range next.endpoints {
		next.labelled = next.labelled && w.labelled
		c := n.classOf(&next, w)
		at := slices.IndexFunc(next.classes, c.same)
		if at < 0 {
			at, next.classes = len(next.classes), append(next.classes, c)
		}
		next.classAt[i] = int32(at)
	}
	return &next
}

// candidates are the workloads with the rarest label of a selector.
func (n *namespace) candidates(selector pairs, byLabel map[pair][]*workload) []*workload {
	best := n.pods
	if len(byLabel) == 0 {
		return best
	}
	for _, p := range selector {
		if list := byLabel[p]; len(list) < len(best) {
			best = list
		}
	}
	return best
}

func (n *namespace) classOf(s *service, w *workload) class {
	c := class{sidecar: w.sidecar, labelled: w.labelled, peer: n.peerOf(w), example: w, ports: make([]int32, len(s.ports))}
	for i := range s.ports {
		c.ports[i] = w.portOf(&s.ports[i])
	}
	return c
}

func (c class) same(other class) bool {
	return c.sidecar == other.sidecar && c.labelled == other.labelled && c.peer == other.peer && slices.Equal(c.ports, other.ports)
}

// peerOf is the one PeerAuthentication that chooses a workload: the oldest.
func (n *namespace) peerOf(w *workload) *peerPolicy {
	for _, p := range n.selecting {
		if p.chooses.in(w.labels) {
			return p
		}
	}
	return nil
}
