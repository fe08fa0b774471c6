// Package policyfeed holds what decides about mTLS in a mesh as it is now: the
// objects, numbered states of them, and what of a state each namespace sees. A
// watch of Kubernetes or of a directory feeds it, and servers read it.
//
// It refuses to decide what a connection may do, which ca/policy does, to fetch
// anything itself, to read a clock, and to log.
package policyfeed

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"citadel/ca/policy"
)

// Feed holds the state of now.
type Feed struct {
	asked    policy.Generation
	instance string

	mu     sync.Mutex
	number uint64 // guarded by mu
	state  *State // guarded by mu; never nil

	viewing sync.Mutex
	views   map[string]*View // guarded by viewing: the last of each namespace
}

// maxViews bounds how many namespaces' views are kept; beyond it they are made
// anew when they are asked for.
const maxViews = 4096

// State is everything at one moment. It does not change.
type State struct {
	// Version names the state, for people: who counts, and how far. Empty while
	// nothing is known.
	Version string
	// Asked is the generation as it was configured.
	Asked policy.Generation
	// Snapshot answers questions. Nil while nothing is known.
	Snapshot *policy.Snapshot
	// Unread is what is not heard of at present.
	Unread []Unread
	// MeshGone says that there was a mesh config, and that its defaults hold since it
	// was deleted.
	MeshGone bool
	// Changed is closed when this is no longer the state.
	Changed <-chan struct{}

	changed chan struct{}
	spaces  map[string]*space     // by namespace; "" for what has none
	broken  map[policy.Ref]string // what could not be read
}

// New makes a feed that knows nothing yet.
func New(asked policy.Generation) *Feed {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	first := &State{Asked: asked, changed: make(chan struct{}), spaces: map[string]*space{}}
	first.Changed = first.changed
	return &Feed{asked: asked, instance: hex.EncodeToString(id[:]), state: first, views: map[string]*View{}}
}

// theMesh is the one mesh config.
var theMesh = policy.Ref{Kind: policy.KindMeshConfig}

// Unread is a kind of objects that is not heard of.
type Unread struct {
	What string // Pod, or ConfigMap istio
	// Old says that it was heard of before, which still counts.
	Old bool
	Why string
}

// String is one line.
func (u Unread) String() string { return u.Fact() + ": " + u.Why }

// Fact is String without the cause, which names who may not do what where.
func (u Unread) Fact() string {
	if u.Old {
		return u.What + " is not heard of, and what is known of it may be old"
	}
	return u.What + " is not read"
}

// Change is what is new. Of one Ref, the last of Put, Gone and Broken counts.
type Change struct {
	Put  []policy.Object // come, or replace those of the same Ref
	Gone []policy.Ref
	// Broken are objects that exist and cannot be read, with the reason. They are
	// as good as absent. A mesh config that is broken, or not valid, leaves the one of before:
	// without any, a whole mesh would turn to plain text for a typing error.
	Broken map[policy.Ref]error
	// Unread is what is not heard of at present: all of it, each time.
	Unread []Unread
	// Known says that the objects of this change, with those before, are all.
	// Until then nobody is told anything.
	Known bool
}

// State is that of now.
func (f *Feed) State() *State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Apply makes the next state. A change that changes nothing makes none.
func (f *Feed) Apply(c Change) {
	f.mu.Lock()
	defer f.mu.Unlock()
	old := f.state
	next := *old
	put, gone := next.take(c)
	next.Unread = slices.Clone(c.Unread)
	if known := old.Snapshot != nil; len(put)+len(gone) == 0 && maps.Equal(old.broken, next.broken) && slices.Equal(old.Unread, next.Unread) && (known || !c.Known) {
		return
	}
	switch {
	case old.Snapshot != nil:
		if len(put) > 0 {
			next.Snapshot = next.Snapshot.With(put...)
		}
		if len(gone) > 0 {
			next.Snapshot = next.Snapshot.Without(gone...)
		}
	case c.Known:
		next.Snapshot = policy.New(f.asked, next.Objects()...)
	}
	if next.Snapshot != nil {
		f.number++
		next.Version = fmt.Sprintf("%s.%d", f.instance, f.number)
	}
	next.changed = make(chan struct{})
	next.Changed = next.changed
	f.state = &next
	close(old.changed)
}

// take puts a change into copies, and returns what differs.
func (s *State) take(c Change) (put []policy.Object, gone []policy.Ref) {
	s.spaces, s.broken = maps.Clone(s.spaces), maps.Clone(s.broken)
	if s.broken == nil {
		s.broken = map[policy.Ref]string{}
	}
	e := editor{s, map[string]bool{}}
	for _, o := range c.Put {
		if mesh, is := o.(*policy.MeshConfig); is {
			problems := policy.Validate(s.Asked, mesh)
			if i := slices.IndexFunc(problems, func(p policy.Problem) bool { return !p.Warning }); i >= 0 {
				s.broken[o.Ref()] = problems[i].Error()
				continue
			}
		}
		delete(s.broken, o.Ref())
		s.MeshGone = s.MeshGone && o.Ref() != theMesh
		if e.put(o) {
			put = append(put, o)
		}
	}
	drop := func(r policy.Ref) {
		if e.drop(r) {
			gone = append(gone, r)
			put = slices.DeleteFunc(put, func(o policy.Object) bool { return o.Ref() == r })
		}
	}
	for _, r := range c.Gone {
		s.MeshGone = s.MeshGone || r == theMesh && (s.IsBroken(r) || e.s.item(r) != nil)
		delete(s.broken, r)
		drop(r)
	}
	for r, err := range c.Broken {
		s.broken[r] = err.Error()
		if r != theMesh {
			drop(r)
		}
	}
	return put, gone
}

// editor changes copies of namespaces.
type editor struct {
	s      *State
	copied map[string]bool
}

func (e *editor) space(name string) *space {
	old := e.s.spaces[name]
	if e.copied[name] {
		return old
	}
	fresh := &space{name: name, items: map[policy.Ref]*Item{}}
	if old != nil {
		maps.Copy(fresh.items, old.items)
	}
	e.copied[name], e.s.spaces[name] = true, fresh
	return fresh
}

func (e *editor) put(o policy.Object) bool {
	ref := o.Ref()
	if old := e.s.item(ref); old != nil && reflect.DeepEqual(old.Object, o) {
		return false
	}
	e.space(ref.Namespace).items[ref] = &Item{Object: o}
	return true
}

func (e *editor) drop(ref policy.Ref) bool {
	if e.s.item(ref) == nil {
		return false
	}
	space := e.space(ref.Namespace)
	delete(space.items, ref)
	if len(space.items) == 0 {
		delete(e.s.spaces, ref.Namespace)
		delete(e.copied, ref.Namespace)
	}
	return true
}

func (s *State) item(ref policy.Ref) *Item {
	if space := s.spaces[ref.Namespace]; space != nil {
		return space.items[ref]
	}
	return nil
}

// Items are all objects, in no order.
func (s *State) Items() (all []*Item) {
	for _, space := range s.spaces {
		for _, item := range space.items {
			all = append(all, item)
		}
	}
	return all
}

// Objects are all objects, in no order.
func (s *State) Objects() (all []policy.Object) {
	for _, item := range s.Items() {
		all = append(all, item.Object)
	}
	return all
}

// Problems says what is not heard of, and what is wrong with objects: those that
// could not be read, and those that are not valid.
func (s *State) Problems() (all []string) {
	for ref, text := range s.broken {
		if !strings.Contains(text, ref.String()) {
			text = ref.String() + ": " + text
		}
		all = append(all, text)
	}
	slices.Sort(all)
	var unread []string
	for _, u := range s.Unread {
		unread = append(unread, u.String())
	}
	all = append(unread, all...)
	if s.Snapshot != nil {
		for _, p := range s.Snapshot.Problems() {
			if !p.Warning {
				all = append(all, p.Error())
			}
		}
	}
	return all
}

func (s *State) config() *policy.MeshConfig {
	if item := s.item(theMesh); item != nil {
		return item.Object.(*policy.MeshConfig)
	}
	return &policy.MeshConfig{}
}

// Warnings are what is to be known of every answer: that it is old, or what
// MeshWarnings says. The codes are stable.
func (s *State) Warnings() []policy.Warning { return s.warnings(Unread.String) }

// Facts are Warnings without causes, for those who run workloads.
func (s *State) Facts() []policy.Warning { return s.warnings(Unread.Fact) }

func (s *State) warnings(text func(Unread) string) []policy.Warning {
	all := s.MeshWarnings()
	for _, u := range s.Unread {
		all = append(all, policy.Warning{Code: "unread", Message: text(u)})
	}
	return all
}

// MeshWarnings are of the mesh config: that it was deleted, and keys that nothing
// here knows.
func (s *State) MeshWarnings() (all []policy.Warning) {
	if s.MeshGone {
		all = append(all, policy.Warning{Code: "mesh-config-gone", Message: "the mesh config was deleted: its defaults hold, which may take plain text where it did not; {} as mesh config says that they are meant"})
	}
	for _, key := range s.config().Unknown {
		all = append(all, key.Warning())
	}
	return all
}

// IsBroken tells whether an object exists and cannot be read.
func (s *State) IsBroken(ref policy.Ref) bool {
	_, broken := s.broken[ref]
	return broken
}
