package enforce

import (
	"net/netip"
	"sync"
)

// waiting counts those of whom it is not known yet whether they may come in: they
// take no more than half of the places, and one address no more than a share of
// these, so that nobody without a certificate can keep out those who have one.
type waiting struct {
	mu   sync.Mutex
	all  int                // guarded by mu
	from map[netip.Addr]int // guarded by mu
}

// The shares, which are no fewer than fewest.
const (
	waitingShare = 2
	addressShare = 16
	fewest       = 16
)

// enter takes a place, and tells whether there was one.
func (w *waiting) enter(addr netip.Addr, connections int) bool {
	addr = origin(addr)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.all >= max(connections/waitingShare, fewest) || w.from[addr] >= max(connections/addressShare, fewest) {
		return false
	}
	if w.from == nil {
		w.from = map[netip.Addr]int{}
	}
	w.all++
	w.from[addr]++
	return true
}

// leave gives a place back.
func (w *waiting) leave(addr netip.Addr) {
	addr = origin(addr)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all--
	if w.from[addr]--; w.from[addr] == 0 {
		delete(w.from, addr)
	}
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
