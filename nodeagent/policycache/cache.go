// Package policycache keeps what a Citadel tells a host of mTLS policy, in memory
// and in a file, so that a host that starts while the Citadel is away goes by
// what it knew last.
//
// It refuses to be more permissive than what it was told: without anything it
// answers STRICT, a damaged file is nothing, and an update counts whole or not at
// all. It does not log, and opens no connection.
package policycache

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// Source is where a policy is from.
type Source string

// The sources.
const (
	None Source = "none" // STRICT, and nobody to call
	Disk Source = "disk" // what the CA said before the agent's start
	CA   Source = "ca"
)

// Status is what is known of the policy.
type Status struct {
	Source Source `json:"source"`
	// Version names the state, for people; it is a replica's own count.
	Version    string `json:"version,omitempty"`
	Generation string `json:"generation,omitempty"`
	Objects    int    `json:"objects"`
	// Updated is when the CA said something new last, and Heard until when it is
	// known to be all: now, while the CA is watched.
	Updated  time.Time `json:"updated,omitzero"`
	Heard    time.Time `json:"heard,omitzero"`
	Watching bool      `json:"watching"`
	// Unread are kinds of objects that the CA did not hear of itself when it said
	// something last: what is known of them may be old.
	Unread []string `json:"unread,omitempty"`
	// NotServed: the CA serves no policy. What it said before stays.
	NotServed bool `json:"notServed,omitempty"`
	// LastError is why the CA is not watched, or the file not kept.
	LastError string `json:"lastError,omitempty"`
}

// Cache holds the policy of now. Any number of goroutines may ask it.
type Cache struct {
	save func([]byte) error

	mu       sync.RWMutex
	items    map[policy.Ref]*policyfeed.Item // guarded by mu
	snapshot *policy.Snapshot                // guarded by mu; nil while nothing is known
	status   Status                          // guarded by mu
	of       spiffeid.ID                     // guarded by mu: whom the CA told it; zero for who asked by a token
	asking   spiffeid.ID                     // guarded by mu: who asks now
	changed  chan struct{}                   // guarded by mu: closed when snapshot is another one
	unkept   bool                            // guarded by mu: the file holds less
	dirty    chan struct{}                   // full when unkept has just become true
}

// Open returns a cache with what load returns, which save kept: fs.ErrNotExist
// says that there is nothing. What was told to another than self does not count:
// each sees a policy of its own. The cache is usable when there is an error, which
// says that there was something and it does not count.
func Open(self spiffeid.ID, load func() ([]byte, error), save func([]byte) error) (*Cache, error) {
	c := &Cache{save: save, items: map[policy.Ref]*policyfeed.Item{}, status: Status{Source: None}, changed: make(chan struct{}), dirty: make(chan struct{}, 1)}
	text, err := load()
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var k kept
	if err == nil {
		k, err = parse(text)
	}
	if err == nil && k.of != self.String() {
		err = fmt.Errorf("it was told to %q, and this host is %q", k.of, self)
	}
	if err != nil {
		err = fmt.Errorf("the policy that was kept does not count: %w", err)
		c.status.LastError = err.Error()
		return c, err
	}
	c.items, c.of = k.items, self
	c.snapshot = snapshotOf(k.generation, k.items)
	c.status = Status{Source: Disk, Version: k.version, Generation: k.generation.String(), Objects: len(k.items), Updated: k.updated, Heard: k.updated}
	return c, nil
}

// Resolve answers one question from what is known. Without any policy, servers
// are STRICT, clients open mTLS, and nobody is known whom they could call.
func (c *Cache) Resolve(q policy.Query) policy.Decision {
	if s := c.Current(); s != nil {
		return s.Resolve(q)
	}
	return policy.Decision{Server: policy.Strict, Client: policy.TLSIstioMutual, Verdict: policy.Conflict, Symptom: policy.UnknownServer}
}

// Current is the policy of now; nil while there is none, which means STRICT.
func (c *Cache) Current() *policy.Snapshot {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.snapshot
}

// Changed is closed when Current is another one.
func (c *Cache) Changed() <-chan struct{} {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.changed
}

// Status is that of now.
func (c *Cache) Status(now time.Time) Status {
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.status
	if s.Watching {
		s.Heard = now
	}
	return s
}

// Held is what to tell the CA that is here already.
func (c *Cache) Held() caclient.PolicyHeld {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.snapshot == nil {
		return caclient.PolicyHeld{}
	}
	items := make([]*policyfeed.Item, 0, len(c.items))
	for _, item := range c.items {
		items = append(items, item)
	}
	return caclient.PolicyHeld{Digests: policyfeed.Digests(items), Generation: c.snapshot.Generation()}
}

// Update takes in what the CA says at now.
func (c *Cache) Update(now time.Time, u caclient.PolicyUpdate) {
	c.mu.Lock()
	defer c.mu.Unlock()
	items := apply(c.items, u)
	put, gone := differ(c.items, items)
	moved := c.of != c.asking
	c.of = c.asking
	same := c.snapshot != nil && c.snapshot.Generation() == u.Generation
	switch {
	case !same:
		c.snapshot = snapshotOf(u.Generation, items)
	case len(put)+len(gone) > 0:
		same = false
		c.snapshot = c.snapshot.With(put...).Without(gone...)
	}
	c.items = items
	c.status = Status{Source: CA, Version: u.Version, Generation: u.Generation.String(), Objects: len(items), Updated: now, Heard: now, Watching: true, Unread: u.Unread}
	if !same {
		close(c.changed)
		c.changed = make(chan struct{})
	}
	if same && !moved {
		return
	}
	c.unkept = true
	select {
	case c.dirty <- struct{}{}:
	default:
	}
}

// Keep writes the file if it is out of date.
func (c *Cache) Keep() error {
	c.mu.Lock()
	if !c.unkept {
		c.mu.Unlock()
		return nil
	}
	c.unkept = false
	k := kept{c.snapshot.Generation(), c.status.Version, c.of.String(), c.status.Updated, c.items} // items are replaced, never changed
	c.mu.Unlock()
	err := c.save(k.text())
	if err == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unkept = true
	err = notKept{fmt.Errorf("keep the policy: a restart will not know of it: %w", err)}
	c.status.LastError = err.Error()
	return err
}

// notKept is the error of a policy that counts, and that a restart will not know of.
type notKept struct{ error }

func (n notKept) Unwrap() error { return n.error }

// NotKept tells whether the policy is the new one, in spite of an error.
func NotKept(err error) bool {
	_, is := errors.AsType[notKept](err)
	return is
}

// ask notes who asks from now on.
func (c *Cache) ask(self spiffeid.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asking = self
}

// Lost notes that the CA is not watched any more, and why. That a CA serves no
// policy is no error of anybody's.
func (c *Cache) Lost(now time.Time, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.status.Watching {
		c.status.Watching, c.status.Heard = false, now
	}
	switch {
	case NotServed(err):
		c.status.NotServed, c.status.LastError = true, ""
	case err != nil:
		c.status.NotServed, c.status.LastError = false, err.Error()
	}
}

// NotServed tells whether an error says that the CA serves no policy.
func NotServed(err error) bool {
	e, ours := errors.AsType[*caclient.Error](err)
	return ours && e.NotServed
}

// apply returns what is held after an update.
func apply(old map[policy.Ref]*policyfeed.Item, u caclient.PolicyUpdate) map[policy.Ref]*policyfeed.Item {
	replaced := map[uint32]bool{}
	for _, b := range u.Replaced {
		replaced[b] = true
	}
	next := make(map[policy.Ref]*policyfeed.Item, len(old)+len(u.Objects))
	if !u.Snapshot {
		for ref, item := range old {
			if len(replaced) == 0 || !replaced[policyfeed.Bucket(ref)] {
				next[ref] = item
			}
		}
	}
	for _, ref := range u.Removed {
		delete(next, ref)
	}
	for _, item := range u.Objects {
		next[item.Object.Ref()] = item
	}
	return next
}

func differ(old, next map[policy.Ref]*policyfeed.Item) (put []policy.Object, gone []policy.Ref) {
	for ref, item := range next {
		if before := old[ref]; before == nil || string(before.Text()) != string(item.Text()) {
			put = append(put, item.Object)
		}
	}
	for ref := range old {
		if next[ref] == nil {
			gone = append(gone, ref)
		}
	}
	return put, gone
}

func snapshotOf(g policy.Generation, items map[policy.Ref]*policyfeed.Item) *policy.Snapshot {
	objects := make([]policy.Object, 0, len(items))
	for _, item := range items {
		objects = append(objects, item.Object)
	}
	return policy.New(g, objects...)
}
