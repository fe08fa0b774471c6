package mesh

import (
	"cmp"
	"fmt"
	"iter"
	"slices"

	"citadel/ca/policy"
)

// ChangeKind is what happens to a connection.
type ChangeKind string

// What may happen, the worst first.
const (
	Breaks          ChangeKind = "breaks"           // worked, and will not
	BreaksAtSome    ChangeKind = "breaks-at-some"   // worked at endpoints at which it will not
	LosesEncryption ChangeKind = "loses-encryption" // works, and will be plain text
	NewConflict     ChangeKind = "new-conflict"     // is new, and will not work
	Mends           ChangeKind = "mends"            // did not work, and will
	MendsAtSome     ChangeKind = "mends-at-some"    // will work at endpoints at which it did not
	GainsEncryption ChangeKind = "gains-encryption" // works, and will be encrypted
	New             ChangeKind = "new"              // is new, and will work
)

// ChangeKinds are all, the worst first.
var ChangeKinds = []ChangeKind{Breaks, BreaksAtSome, LosesEncryption, NewConflict, Mends, MendsAtSome, GainsEncryption, New}

// PairChange is what happens to the connections of some clients to some servers.
type PairChange struct {
	Kind    ChangeKind `json:"kind"`
	Clients []string   `json:"clients"`
	Servers []string   `json:"servers"`
	Before  Cell       `json:"before"`
	After   Cell       `json:"after"`
	// At are the endpoints at which it happens, of so many; both are empty when that
	// is all of them.
	At []string `json:"at,omitempty"`
	Of int      `json:"of,omitempty"`
}

// Diff is what a change does to a mesh.
type Diff struct {
	// Generation is whose rules hold before and after: another one may be picked
	// for what the change brings.
	GenerationBefore string       `json:"generationBefore"`
	GenerationAfter  string       `json:"generationAfter"`
	Pairs            int          `json:"pairs"` // that were compared
	Changes          []PairChange `json:"changes"`
	// Counts are pairs of one kind of client and one port of a server.
	Counts map[ChangeKind]int `json:"counts"`
}

// Compare tells what happens to each pair between two Worlds, the worst first.
func Compare(before, after *World) Diff {
	d := Diff{GenerationBefore: before.Generation().String(), GenerationAfter: after.Generation().String(),
		Changes: []PairChange{}, Counts: map[ChangeKind]int{}}
	known := map[string]int{} // changes that are alike
	for c := range changes(before, after, "") {
		d.Counts[c.Kind] += len(c.Clients)
		key := fmt.Sprintf("%q %q %#v %#v %q %d", c.Kind, c.Clients, c.Before, c.After, c.At, c.Of)
		if i, is := known[key]; is {
			d.Changes[i].Servers = append(d.Changes[i].Servers, c.Servers...)
			continue
		}
		known[key] = len(d.Changes)
		d.Changes = append(d.Changes, c)
	}
	slices.SortStableFunc(d.Changes, func(a, b PairChange) int {
		return cmp.Compare(slices.Index(ChangeKinds, a.Kind), slices.Index(ChangeKinds, b.Kind))
	})
	d.Pairs = len(pairedCallers(before, after)) * len(servers(before, after, ""))
	return d
}

// changes yields what happens to the servers of a namespace, or of all, server
// by server.
func changes(before, after *World, namespace string) iter.Seq[PairChange] {
	return func(yield func(PairChange) bool) {
		callers := pairedCallers(before, after)
		for _, server := range servers(before, after, namespace) {
			for _, c := range serverChanges(before, after, callers, server) {
				if !yield(c) {
					return
				}
			}
		}
	}
}

// serverChanges are those of one server; clients to whom the same happens are
// one change.
func serverChanges(before, after *World, callers []pairedCaller, server policy.Server) (all []PairChange) {
	text := fmt.Sprintf("%s:%d", server.Host, server.Port)
	for _, c := range callers {
		var was policy.Decision
		if c.before != nil {
			was = before.Resolve(policy.Query{Client: c.before.Client, Server: server})
		}
		is := after.Resolve(policy.Query{Client: c.after.Client, Server: server})
		change := changeOf(was, is, c.before == nil)
		if change.Kind == "" {
			continue
		}
		change.Clients, change.Servers = []string{c.after.Name()}, []string{text}
		same := func(other PairChange) bool {
			return other.Kind == change.Kind && other.Before == change.Before && other.After == change.After && other.Of == change.Of && slices.Equal(other.At, change.At)
		}
		if i := slices.IndexFunc(all, same); i >= 0 {
			all[i].Clients = append(all[i].Clients, change.Clients...)
		} else {
			all = append(all, change)
		}
	}
	return all
}

// pairedCaller is clients that are alike before a change, and after it.
type pairedCaller struct{ before, after *Caller } // before is nil for new ones

// pairedCallers follows each workload through a change. Those that go are left
// out.
func pairedCallers(before, after *World) (all []pairedCaller) {
	type pair struct{ before, after string }
	seen := map[pair]bool{}
	had, has := before.chosenLabels(), after.chosenLabels()
	for _, one := range after.workloads("") {
		c := pairedCaller{after: has.caller(one)}
		key := pair{after: c.after.key()}
		if old, was := asWorkload(before.objects[one.ref]); was {
			c.before = had.caller(old)
			key.before = c.before.key()
		}
		if !seen[key] {
			seen[key] = true
			all = append(all, c)
		}
	}
	slices.SortStableFunc(all, func(a, b pairedCaller) int { return compareCallers(a.after, b.after) })
	return all
}

// servers lists those of two Worlds, once each.
func servers(before, after *World, namespace string) (all []policy.Server) {
	for _, w := range []*World{before, after} {
		for server := range w.Servers() {
			if namespace == "" || namespaceOf(w, policy.Query{Server: server}) == namespace {
				all = append(all, server)
			}
		}
	}
	slices.SortFunc(all, compareServers)
	return slices.CompactFunc(all, func(a, b policy.Server) bool { return compareServers(a, b) == 0 })
}

func compareServers(a, b policy.Server) int {
	return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
}
