package policyfeed

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"citadel/ca/policy"
)

func strict(ns string) *policy.PeerAuthentication {
	return &policy.PeerAuthentication{Meta: policy.Meta{Name: "p", Namespace: ns}, Spec: policy.PeerAuthenticationSpec{MTLS: &policy.PeerMTLS{Mode: policy.Strict}}}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestFeed: what counts, when it counts, and who is told.
func TestFeed(t *testing.T) {
	f := New(policy.Auto)
	first := f.State()
	f.Apply(Change{Put: []policy.Object{strict("a")}})
	if s := f.State(); s.Snapshot != nil || s.Version != "" || f.View("a") != nil {
		t.Error("half of it was told")
	}
	f.Apply(Change{Known: true})
	known := f.State()
	if known.Snapshot == nil || known.Version == "" || !closed(first.Changed) || closed(known.Changed) {
		t.Fatalf("%+v", known)
	}
	if got := known.Snapshot.Generation(); got != policy.V1 {
		t.Errorf("generation %s", got)
	}
	f.Apply(Change{Put: []policy.Object{strict("a")}, Gone: []policy.Ref{{Kind: policy.KindPod, Namespace: "x", Name: "y"}}})
	if f.State() != known {
		t.Error("nothing changed, and there is a new state")
	}
	f.Apply(Change{Gone: []policy.Ref{strict("a").Ref()}})
	if s := f.State(); s.Version == known.Version || len(s.Items()) != 0 || s.Snapshot.Generation() != policy.V1 {
		t.Errorf("%+v", s)
	}
	if len(known.Items()) != 1 {
		t.Error("an earlier state changed")
	}
}

// TestBroken: what cannot be read is absent and told; but a mesh config leaves
// the one of before.
func TestBroken(t *testing.T) {
	mesh := &policy.MeshConfig{AuthPolicy: policy.AuthMutualTLS}
	f := fed(policy.Legacy, strict("a"), mesh)
	f.Apply(Change{Broken: map[policy.Ref]error{strict("a").Ref(): errors.New("line 3"), mesh.Ref(): errors.New("line 4")}})
	s := f.State()
	if got := strings.Join(s.Problems(), "; "); got != "MeshConfig: line 4; PeerAuthentication/a/p: line 3" {
		t.Errorf("problems: %s", got)
	}
	if items := s.Items(); len(items) != 1 || items[0].Object != policy.Object(mesh) {
		t.Errorf("%v", items)
	}
	f.Apply(Change{Put: []policy.Object{strict("a"), mesh}})
	if p := f.State().Problems(); len(p) != 0 {
		t.Errorf("problems: %v", p)
	}
	f.Apply(Change{Put: []policy.Object{&policy.MeshConfig{RootNamespace: "Istio System"}}})
	if s := f.State(); len(s.Problems()) != 1 || !slices.ContainsFunc(s.Objects(), func(o policy.Object) bool { return o == policy.Object(mesh) }) {
		t.Errorf("a mesh config that is not valid: %v, %v", s.Problems(), s.Objects())
	}
	bad := strict("a")
	bad.Spec.PortLevelMTLS = map[uint32]policy.PeerMTLS{1: {}}
	f = fed(policy.V1, bad)
	if p := f.State().Problems(); len(p) != 1 || !strings.Contains(p[0], "portLevelMtls requires selector") {
		t.Errorf("problems: %v", p)
	}
}

// TestLastCounts: of one name, what is said last.
func TestLastCounts(t *testing.T) {
	f := fed(policy.V1)
	f.Apply(Change{Put: []policy.Object{strict("a"), strict("b")}, Gone: []policy.Ref{strict("a").Ref()}})
	if all := f.State().Objects(); len(all) != 1 || all[0].Ref().Namespace != "b" {
		t.Errorf("%v", all)
	}
	if !slices.Equal(f.State().Snapshot.Namespaces(), []string{"b"}) {
		t.Errorf("%v", f.State().Snapshot.Namespaces())
	}
}

// TestUnread: what is not heard of is a problem until it is heard of again, and
// what was known of it counts.
func TestUnread(t *testing.T) {
	f := fed(policy.V1, strict("a"))
	before := f.State()
	unread := []Unread{{What: "Pod", Why: "forbidden"}}
	f.Apply(Change{Unread: unread})
	s := f.State()
	if !closed(before.Changed) || !slices.Equal(s.Problems(), []string{"Pod is not read: forbidden"}) || len(s.Items()) != 1 || s.Version == before.Version {
		t.Errorf("%v, %v", s.Problems(), s.Items())
	}
	f.Apply(Change{Unread: unread})
	if f.State() != s {
		t.Error("nothing changed, and there is a new state")
	}
	if f.Apply(Change{}); len(f.State().Problems()) != 0 {
		t.Errorf("%v", f.State().Problems())
	}
}

// TestUnknownKeys: keys that nothing here knows are told, as long as they are there.
func TestUnknownKeys(t *testing.T) {
	f := fed(policy.Legacy)
	f.Apply(Change{Put: []policy.Object{&policy.MeshConfig{Unknown: []policy.UnknownKey{{Key: "acessLogFile", Like: "accessLogFile"}}}}})
	if w := f.State().Warnings(); len(w) != 1 || w[0].Code != "mesh-config-unknown-key" {
		t.Errorf("%v", w)
	}
	f.Apply(Change{Put: []policy.Object{&policy.MeshConfig{}}})
	if w := f.State().Warnings(); len(w) != 0 {
		t.Errorf("%v", w)
	}
}

// TestMeshConfigIsDeleted: defaults hold, as after a restart; and that is told
// until there is one again.
func TestMeshConfigIsDeleted(t *testing.T) {
	mesh := &policy.MeshConfig{AuthPolicy: policy.AuthMutualTLS}
	gone := Change{Gone: []policy.Ref{mesh.Ref()}}
	f := fed(policy.Legacy)
	if f.Apply(gone); f.State().MeshGone {
		t.Error("there was none")
	}
	f.Apply(Change{Put: []policy.Object{mesh}})
	f.Apply(gone)
	s := f.State()
	if w := s.Warnings(); !s.MeshGone || len(s.Items()) != 0 || len(w) != 1 || w[0].Code != "mesh-config-gone" || len(s.Problems()) != 0 {
		t.Errorf("%v, %v, %v", s.Items(), s.Warnings(), s.Problems())
	}
	f.Apply(Change{Put: []policy.Object{strict("a")}})
	f.Apply(Change{Broken: map[policy.Ref]error{mesh.Ref(): errors.New("line 1")}})
	if !f.State().MeshGone {
		t.Error("defaults hold, and that is not told")
	}
	f.Apply(Change{Put: []policy.Object{&policy.MeshConfig{}}})
	if s := f.State(); s.MeshGone || len(s.Warnings()) != 0 {
		t.Errorf("%v", s.Warnings())
	}
	first := New(policy.Legacy)
	first.Apply(Change{Known: true, Broken: map[policy.Ref]error{mesh.Ref(): errors.New("line 1")}})
	if first.Apply(gone); !first.State().MeshGone {
		t.Error("one that was never read and is deleted is not told")
	}
}
