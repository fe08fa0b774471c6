// Package mesh says what people ask about the mTLS policy of a mesh: why a
// client can or cannot talk to a server and what would mend it, who can talk to
// whom, and what a change would break.
//
// All answers are those of ca/policy, about objects that the caller has read.
// The package does no I/O, reads no clock and writes nothing for people.
package mesh

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"citadel/ca/policy"
)

// World is a mesh: its objects, and the Snapshot of them. It does not change.
type World struct {
	*policy.Snapshot
	objects map[policy.Ref]policy.Object
}

// NewWorld makes a World of objects; of two with one Ref the later counts.
func NewWorld(g policy.Generation, objects []policy.Object) *World {
	w := &World{policy.New(g, objects...), make(map[policy.Ref]policy.Object, len(objects))}
	for _, o := range objects {
		w.objects[o.Ref()] = o
	}
	return w
}

// Object returns an object by its name, nil when there is none.
func (w *World) Object(ref policy.Ref) policy.Object { return w.objects[ref] }

// With returns the World after objects were applied to it at a time: one that
// replaces another is as old as that, and one that is new is of now unless it
// says otherwise. Age matters: of two objects for the same thing the older counts.
func (w *World) With(now time.Time, objects ...policy.Object) *World {
	next := &World{objects: maps.Clone(w.objects)}
	aged := make([]policy.Object, len(objects))
	for i, o := range objects {
		aged[i] = age(o, w.objects[o.Ref()], now)
		next.objects[o.Ref()] = aged[i]
	}
	next.Snapshot = w.Snapshot.With(aged...)
	return next
}

// Without returns the World after objects were deleted.
func (w *World) Without(refs ...policy.Ref) *World {
	next := &World{w.Snapshot.Without(refs...), maps.Clone(w.objects)}
	for _, ref := range refs {
		delete(next.objects, ref)
	}
	return next
}

// age returns a copy of an object with the time of its creation.
func age(o, old policy.Object, now time.Time) policy.Object {
	created := now.UTC()
	if old != nil {
		created = createdAt(old)
	}
	switch o := o.(type) {
	case *policy.MeshPolicy:
		c := *o
		return stamp(&c, &c.Created, created, old != nil)
	case *policy.Policy:
		c := *o
		return stamp(&c, &c.Created, created, old != nil)
	case *policy.PeerAuthentication:
		c := *o
		return stamp(&c, &c.Created, created, old != nil)
	case *policy.DestinationRule:
		c := *o
		return stamp(&c, &c.Created, created, old != nil)
	}
	return o // of others the age does not matter
}

func stamp(o policy.Object, at *time.Time, created time.Time, replaces bool) policy.Object {
	if replaces || at.IsZero() {
		*at = created
	}
	return o
}

func createdAt(o policy.Object) time.Time {
	switch o := o.(type) {
	case *policy.MeshPolicy:
		return o.Created
	case *policy.Policy:
		return o.Created
	case *policy.PeerAuthentication:
		return o.Created
	case *policy.DestinationRule:
		return o.Created
	}
	return time.Time{}
}

// workload is a Pod or a WorkloadEntry as a client.
type workload struct {
	ref     policy.Ref
	account string
	sidecar bool
	labels  map[string]string
}

func asWorkload(o policy.Object) (workload, bool) {
	switch o := o.(type) {
	case *policy.Pod:
		return workload{o.Ref(), cmp.Or(o.Spec.ServiceAccountName, "default"), o.Sidecar(), o.Labels}, !o.Status.Phase.Ended()
	case *policy.WorkloadEntry:
		labels := o.AllLabels()
		return workload{o.Ref(), cmp.Or(o.Spec.ServiceAccount, "default"), labels["security.istio.io/tlsMode"] == "istio", labels}, true
	}
	return workload{}, false
}

// workloads lists those of a namespace, or of all when it is empty, by name.
func (w *World) workloads(namespace string) (all []workload) {
	for ref, o := range w.objects {
		if namespace != "" && ref.Namespace != namespace {
			continue
		}
		if one, is := asWorkload(o); is {
			all = append(all, one)
		}
	}
	slices.SortFunc(all, func(a, b workload) int { return compareRefs(a.ref, b.ref) })
	return all
}

func compareRefs(a, b policy.Ref) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), cmp.Compare(a.Kind, b.Kind))
}

// matches tells whether labels have all pairs of a selector that is not empty.
func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, has := labels[k]; !has || got != v {
			return false
		}
	}
	return len(selector) > 0
}
