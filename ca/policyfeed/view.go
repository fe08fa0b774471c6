package policyfeed

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"sync"

	"citadel/ca/policy"
)

// View is what one namespace sees of a State: its own objects, and of the others
// what its workloads need to call them. For every client in that namespace and
// every server in it, a Snapshot of the view answers as one of the whole. It
// does not change.
type View struct {
	State *State
	// Generation is that of the whole: a view does not hold what Auto goes by.
	Generation policy.Generation

	namespace string
	parts     map[string]*part // by namespace

	digests  func() []byte
	snapshot func() *policy.Snapshot
}

// part is what a viewer sees of one namespace.
type part struct {
	of    *space
	scope scope
	items map[policy.Ref]*Item
}

// scope is what decides from outside of a namespace who sees it.
type scope struct {
	generation policy.Generation
	root       string
	privates   string // defaultServiceExportTo and defaultDestinationRuleExportTo
}

// space is one namespace of a State. It does not change.
type space struct {
	name  string
	items map[policy.Ref]*Item

	mu     sync.Mutex
	public *part // guarded by mu: what those see whom nothing here names
}

// View is what a namespace sees now; nil while nothing is known.
func (f *Feed) View(namespace string) *View {
	f.viewing.Lock()
	defer f.viewing.Unlock()
	state, last := f.State(), f.views[namespace]
	if state.Snapshot == nil {
		return nil
	}
	if last != nil && last.State == state {
		return last
	}
	next := state.view(namespace, last)
	if len(f.views) >= maxViews {
		clear(f.views)
	}
	f.views[namespace] = next
	return next
}

// view makes a view, with what is still right of an earlier one.
func (s *State) view(namespace string, last *View) *View {
	config := s.config()
	at := scope{s.Snapshot.Generation(), s.Snapshot.RootNamespace(), strings.Join(config.ServiceExportTo, ",") + ";" + strings.Join(config.RuleExportTo, ",")}
	v := &View{State: s, Generation: at.generation, namespace: namespace, parts: make(map[string]*part, len(s.spaces))}
	for name, space := range s.spaces {
		if last != nil {
			if p := last.parts[name]; p != nil && p.of == space && p.scope == at {
				v.parts[name] = p
				continue
			}
		}
		if p := space.seenBy(namespace, at, s); len(p.items) > 0 {
			v.parts[name] = p
		}
	}
	v.digests = sync.OnceValue(func() []byte { return Digests(v.Items()) })
	v.snapshot = sync.OnceValue(func() *policy.Snapshot {
		var objects []policy.Object
		for _, item := range v.Items() {
			objects = append(objects, item.Object)
		}
		return policy.New(v.Generation, objects...)
	})
	return v
}

// Items are what is seen, in no order.
func (v *View) Items() (all []*Item) {
	for _, p := range v.parts {
		all = slices.AppendSeq(all, maps.Values(p.items))
	}
	return all
}

// Snapshot answers questions from what is seen.
func (v *View) Snapshot() *policy.Snapshot { return v.snapshot() }

// Digests is that of Items.
func (v *View) Digests() []byte { return v.digests() }

// Since returns what has come and gone since an earlier view of the same
// namespace.
func (v *View) Since(earlier *View) (come []*Item, gone []policy.Ref) {
	for name, p := range v.parts {
		before := earlier.parts[name]
		if before == p {
			continue
		}
		for ref, item := range p.items {
			if before == nil || !same(before.items[ref], item) {
				come = append(come, item)
			}
		}
	}
	for name, before := range earlier.parts {
		p := v.parts[name]
		if before == p {
			continue
		}
		for ref := range before.items {
			if p == nil || p.items[ref] == nil {
				gone = append(gone, ref)
			}
		}
	}
	return come, gone
}

// same tells whether two items would be sent alike.
func same(a, b *Item) bool { return a == b || a != nil && b != nil && bytes.Equal(a.Text(), b.Text()) }
