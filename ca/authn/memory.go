package authn

import (
	"crypto/sha256"
	"sync"
	"time"
)

// maxRemembered bounds each memory.
const maxRemembered = 16384

// sweepEvery is how often what has ended is looked for.
const sweepEvery = time.Minute

// digest stands for a token, which is not kept.
type digest [sha256.Size]byte

// memory holds what was found out about tokens, each until a time. The zero
// memory is ready, and safe for concurrent use.
type memory[V any] struct {
	mu      sync.Mutex
	entries map[digest]remembered[V] // guarded by mu
	swept   time.Time                // guarded by mu
}

type remembered[V any] struct {
	value V
	until time.Time
}

func (m *memory[V]) get(now time.Time, d digest) (V, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[d]
	if !now.Before(e.until) {
		var none V
		return none, false
	}
	return e.value, true
}

func (m *memory[V]) forget(d digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.entries, d)
}

func (m *memory[V]) put(now time.Time, d digest, value V, until time.Time) {
	if !now.Before(until) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.entries == nil {
		m.entries = map[digest]remembered[V]{}
	}
	if now.Sub(m.swept).Abs() >= sweepEvery {
		m.sweep(now)
	}
	if _, known := m.entries[d]; !known && len(m.entries) >= maxRemembered {
		m.dropOne()
	}
	m.entries[d] = remembered[V]{value, until}
}

// sweep forgets what has ended; mu is held.
func (m *memory[V]) sweep(now time.Time) {
	for d, e := range m.entries {
		if !now.Before(e.until) {
			delete(m.entries, d)
		}
	}
	m.swept = now
}

// dropOne makes room; mu is held. Which one goes is chance: nobody can aim.
func (m *memory[V]) dropOne() {
	for d := range m.entries {
		delete(m.entries, d)
		return
	}
}
