package policy

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestBrokenObjectsGiveNothing: with an object that is not valid no answer is
// more permissive than without it, on random meshes.
func TestBrokenObjectsGiveNothing(t *testing.T) {
	for _, seed := range []uint64{1, rand.Uint64()} {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			tried := map[Kind]int{}
			for i := range uint64(4 * meshes) {
				w := world{rand.New(rand.NewPCG(seed, i))}
				asked := []Generation{Auto, Legacy, V1Alpha1, V1}[i%4]
				objects := w.validObjects()
				without := New(asked, objects...)
				bad := w.broken(without.Generation(), objects)
				if bad == nil {
					continue
				}
				tried[bad.Ref().Kind]++
				with := New(asked, append(objects, bad)...)
				for range questions {
					q := w.query()
					if a, b := without.Resolve(q), with.Resolve(q); opens(a, b) {
						t.Fatalf("%s %+v\nwithout %s: %s %s -> %s, with it: %s %s -> %s\n%s", asked, q, bad.Ref(),
							without.Generation(), a.Client, a.Server, with.Generation(), b.Client, b.Server, show(append(objects, bad)))
					}
				}
			}
			for _, k := range []Kind{KindMeshConfig, KindMeshPolicy, KindPolicy, KindPeerAuthentication, KindDestinationRule} {
				if tried[k] == 0 {
					t.Errorf("no broken %s was tried", k)
				}
			}
		})
	}
}

// opens tells whether a decision is more permissive than another.
func opens(before, after Decision) bool {
	rank := map[Mode]int{Disable: 1, Permissive: 2, Strict: 3}
	return rank[after.Server] < rank[before.Server] || before.Client == TLSIstioMutual && after.Client == TLSDisable
}

// validObjects are valid in each generation.
func (w world) validObjects() (objects []Object) {
	for range w.IntN(20) {
		if o := w.object(); valid(V1, o) && valid(V1Alpha1, o) {
			objects = append(objects, o)
		}
	}
	return latest(objects)
}

// broken is an object that is not valid, of a name that there is not; nil if
// chance made none.
func (w world) broken(g Generation, objects []Object) Object {
	for range 30 {
		o := w.object()
		if mesh, is := o.(*MeshConfig); is {
			switch w.IntN(3) {
			case 0:
				mesh.RootNamespace = "Istio System"
			case 1:
				mesh.TrustDomain = "of whom/"
			case 2:
				mesh.AuthPolicy = AuthMutualTLS + 1
			}
		}
		if !valid(g, o) && len(latest(append(objects[:len(objects):len(objects)], o))) > len(objects) {
			return o
		}
	}
	return nil
}

// TestAutoGoesByWhatIsValid: an object that is not valid is no trace of a
// generation.
func TestAutoGoesByWhatIsValid(t *testing.T) {
	legacy := &MeshConfig{AuthPolicy: AuthMutualTLS}
	for name, bad := range map[string]Object{
		"a PeerAuthentication with ports and no selector": &PeerAuthentication{Meta: Meta{Name: "p", Namespace: "a"}, Spec: PeerAuthenticationSpec{PortLevelMTLS: map[uint32]PeerMTLS{80: {}}}},
		"a Policy whose name is not for it":               &Policy{Meta: Meta{Name: "p", Namespace: "a"}},
		"a Policy without a target's name":                &Policy{Meta: Meta{Name: "p", Namespace: "a"}, Spec: PolicySpec{Targets: []Target{{}}}},
		"a MeshPolicy that is not called default":         &MeshPolicy{Meta: Meta{Name: "other"}},
	} {
		if g := New(Auto, legacy, bad).Generation(); g != Legacy {
			t.Errorf("%s makes of a mesh of legacy one of %s", name, g)
		}
	}
}

// TestMeshConfigThatIsNotValid: it is set aside and told of; nothing decodes to it.
func TestMeshConfigThatIsNotValid(t *testing.T) {
	for text, want := range map[string]string{
		"authPolicy: MUTUAL_TLS\nrootNamespace: Istio System": `2: MeshConfig: rootNamespace: "Istio System" is no DNS label`,
		"trustDomain: of whom/":                               `1: MeshConfig: trustDomain: "of whom/" is no trust domain`,
	} {
		if mesh, err := DecodeMeshConfig("f", []byte(text)); err == nil || mesh != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v", text, mesh, err)
		}
		if all, err := Decode("f", fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio}\ndata: {mesh: %q}", text)); err == nil || len(all) > 0 {
			t.Errorf("%q in a ConfigMap: %v, %v", text, all, err)
		}
		if problems := ValidateMeshConfig(V1, "f", []byte(text)); len(problems) != 1 {
			t.Errorf("%q: %v", text, problems)
		}
	}
	s := New(Legacy, &MeshConfig{RootNamespace: "Istio System", TrustDomain: "td"})
	if p := s.Problems(); len(p) != 1 || s.TrustDomain() != "cluster.local" || s.RootNamespace() != "istio-system" {
		t.Errorf("%v, %s, %s", p, s.TrustDomain(), s.RootNamespace())
	}
}

// TestTagsHideNothing: a tag that a value does not have of itself is an error.
func TestTagsHideNothing(t *testing.T) {
	const object = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: n}\n"
	for _, text := range []string{
		object + "spec: !!null {mtls: {mode: STRICT}}", object + "spec: {mtls: {mode: !!null STRICT}}", object + "spec: {mtls: {!!null mode: STRICT}}",
		"!!null\n" + object, "!!set {}", "!mine {}", object + "spec: {mtls: &x !!null {mode: STRICT}}", object + "spec: {mtls: {mode: !!binary U1RSSUNU}}",
		"apiVersion: v1\nkind: List\nitems: !!null [{}]", object + "spec: !!str {mtls: {mode: STRICT}}",
	} {
		if all, err := Decode("f", []byte(text)); err == nil || len(all) > 0 || !strings.Contains(err.Error(), "tag !") {
			t.Errorf("%s: %v, %v", text, all, err)
		}
	}
	text := strings.Replace(object, "name: p", "name: !!str 80", 1) + "spec: !!map {mtls: {mode: !!str STRICT}, selector: !!null }"
	if all, err := Decode("f", []byte(text)); err != nil || all[0].(*PeerAuthentication).mode() != Strict || all[0].(*PeerAuthentication).Name != "80" {
		t.Errorf("%v, %v", all, err)
	}
}
