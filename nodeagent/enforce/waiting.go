package enforce

import (
	"container/list"
	"net/netip"
	"sync"
)

// waiting are those of whom it is not known yet whether they may come in. They take
// no more than half of the places; where these are taken, who has waited longest
// makes room, for a client with a certificate shows it within milliseconds. Nobody
// evicts others from a single address: one has no more than a share of the places.
type waiting struct {
	mu    sync.Mutex
	order list.List          // guarded by mu: of *waiter, the oldest first
	from  map[netip.Addr]int // guarded by mu
}

type waiter struct {
	addr netip.Addr
	cut  func()
}

// The shares, of which none is below fewest, but that an address has half of the
// places at most.
const (
	waitingShare = 2
	waitingLeast = 8 // however many strangers there are: half of what is kept from them
	addressShare = 16
	fewest       = 16
)

// enter takes a place, of those that strangers leave, until leave is called, or cut
// is, because another needs the place: then leave is false. Where it is not ok, the
// address has its share.
func (w *waiting) enter(addr netip.Addr, connections, strangers int, cut func()) (leave func() bool, ok bool) {
	addr = origin(addr)
	places := max(min(connections/waitingShare, uncertified(connections)-strangers), connections/waitingLeast, fewest)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.from[addr] >= min(max(connections/addressShare, fewest), places/2) {
		return nil, false
	}
	for w.order.Len() >= places {
		oldest := w.order.Front()
		w.remove(oldest)
		oldest.Value.(*waiter).cut()
	}
	if w.from == nil {
		w.from = map[netip.Addr]int{}
	}
	w.from[addr]++
	place := w.order.PushBack(&waiter{addr, cut})
	return func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.remove(place)
	}, true
}

// remove gives a place back, and tells whether it was still taken. The caller holds
// mu.
func (w *waiting) remove(place *list.Element) bool {
	one := place.Value.(*waiter)
	if one.addr == (netip.Addr{}) {
		return false
	}
	w.order.Remove(place)
	if w.from[one.addr]--; w.from[one.addr] == 0 {
		delete(w.from, one.addr)
	}
	one.addr = netip.Addr{}
	return true
}

// len is how many wait.
func (w *waiting) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.order.Len()
}

// origin is whom an address counts for: in IPv6 one network has countless ones.
func origin(addr netip.Addr) netip.Addr {
	if addr.Is6() {
		if network, err := addr.Prefix(64); err == nil {
			return network.Addr()
		}
	}
	return addr
}

// certifiedShare of the connections is kept for clients that show a certificate, so
// that nobody else can shut them out.
const certifiedShare = 4

// stranger takes a place for a client without a certificate until leave is called;
// it is too many where ok is false.
func (e *Enforcer) stranger(connections int) (leave func(), ok bool) {
	now := e.strangers.Add(1)
	return func() { e.strangers.Add(-1) }, now <= int64(uncertified(connections))
}

// uncertified is how many may be without a certificate, or have not shown it yet.
func uncertified(connections int) int { return max(connections-connections/certifiedShare, 1) }
