package policyfeed

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"citadel/ca/policy"
)

func fed(g policy.Generation, objects ...policy.Object) *Feed {
	f := New(g)
	f.Apply(Change{Put: objects, Known: true})
	return f
}

// TestViewsAnswerAsTheWhole: for each client of the namespace that a view is
// for, every server of the view has the answer of the whole mesh.
func TestViewsAnswerAsTheWhole(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	compared := 0
	for round := range 300 {
		w := world{rand.New(rand.NewPCG(seed, uint64(round)))}
		objects := w.mesh()
		f := fed(policy.Generation(w.IntN(4)), objects...)
		for _, viewer := range []string{"a", "b", "istio-system", "nobody"} {
			view, whole := f.View(viewer), f.State().Snapshot
			for server := range view.Snapshot().Servers() {
				q := policy.Query{Client: policy.Client{Namespace: viewer, Sidecar: w.IntN(5) > 0, Labels: w.labels()}, Server: server}
				if q.Server.Host[0] == '*' {
					q.Server.Host = "deep" + q.Server.Host[1:]
				}
				compared++
				a, b := whole.Resolve(q), view.Snapshot().Resolve(q)
				if got, want := said(b), said(a); got != want {
					t.Fatalf("round %d, %s, %s, %+v:\nthe whole: %s\nthe view:  %s\n%s", round, view.Generation, viewer, q, want, got, names(objects))
				}
				if got, want := fmt.Sprint(b.Explain().Identities), fmt.Sprint(a.Explain().Identities); got != want {
					t.Fatalf("round %d, %s: identities %s, want %s\n%s", round, viewer, got, want, names(objects))
				}
			}
		}
	}
	if compared < 5000 {
		t.Errorf("only %d answers were compared", compared)
	}
}

func said(d policy.Decision) string {
	return fmt.Sprintln(d.Server, d.ServerBy, d.Client, d.ClientBy, d.Verdict, d.Symptom)
}

// TestViewsAreNarrow: what is not exported to a namespace, and what speaks of
// that alone, is not told there.
func TestViewsAreNarrow(t *testing.T) {
	meta := func(name, ns string) policy.Meta { return policy.Meta{Name: name, Namespace: ns} }
	service := func(name, exportTo string) *policy.Service {
		s := &policy.Service{Meta: meta(name, "b"), Spec: policy.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []policy.ServicePort{{Port: 80}}}}
		if exportTo != "" {
			s.Annotations = map[string]string{exportAnnotation: exportTo}
		}
		return s
	}
	pod := func(name, ns string) *policy.Pod {
		p := &policy.Pod{Meta: meta(name, ns)}
		p.Labels = map[string]string{"app": name}
		return p
	}
	peer := func(name string) *policy.PeerAuthentication {
		return &policy.PeerAuthentication{Meta: meta(name, "b"), Spec: policy.PeerAuthenticationSpec{Selector: &policy.Selector{MatchLabels: map[string]string{"app": name}}}}
	}
	rule := func(host, exportTo string) *policy.DestinationRule {
		r := &policy.DestinationRule{Meta: meta("rule-"+strings.Trim(host, "*."), "b"), Spec: policy.DestinationRuleSpec{Host: host, TrafficPolicy: &policy.TrafficPolicy{}}}
		r.Spec.TrafficPolicy.TLS = &policy.ClientTLS{Mode: policy.TLSSimple, SNI: "telltale"}
		if exportTo != "" {
			r.Spec.ExportTo = []string{exportTo}
		}
		return r
	}
	targets := func(names ...string) *policy.Policy {
		p := &policy.Policy{Meta: meta("both", "b")}
		for _, n := range names {
			p.Spec.Targets = append(p.Spec.Targets, policy.Target{Name: n})
		}
		return p
	}
	f := fed(policy.V1,
		service("open", ""), service("secret", "."), service("for-c", "c"),
		pod("open", "b"), pod("secret", "b"), pod("for-c", "b"), pod("bare", "b"), pod("own", "a"),
		peer("open"), peer("secret"), rule("open", ""), rule("secret", ""), rule("for-c", "."), rule("*.b.svc.cluster.local", "c"), targets("open", "secret"),
		&policy.Namespace{Meta: policy.Meta{Name: "a"}}, &policy.Namespace{Meta: policy.Meta{Name: "b"}},
		&policy.MeshPolicy{Meta: policy.Meta{Name: "default"}}, &policy.MeshPolicy{Meta: policy.Meta{Name: "other"}})
	sees := map[string]string{
		"a": "[DestinationRule/b/rule-b.svc.cluster.local DestinationRule/b/rule-open MeshPolicy/default Namespace/a PeerAuthentication/b/open Pod/a/own Pod/b/open Policy/b/both Service/b/open]",
		"c": "[DestinationRule/b/rule-b.svc.cluster.local DestinationRule/b/rule-open MeshPolicy/default PeerAuthentication/b/open Pod/b/for-c Pod/b/open Policy/b/both Service/b/for-c Service/b/open]",
	}
	for _, viewer := range []string{"c", "a", "c"} { // what one sees is not kept for another
		var seen []string
		want := sees[viewer]
		for _, item := range f.View(viewer).Items() {
			seen = append(seen, item.Object.Ref().String())
			if ref := item.Object.Ref().String(); viewer == "a" && (strings.Contains(string(item.Text()), "secret") || ref == "DestinationRule/b/rule-b.svc.cluster.local" && strings.Contains(string(item.Text()), "telltale")) {
				t.Errorf("%s sees too much: %s", viewer, item.Text())
			}
		}
		slices.Sort(seen)
		if got := fmt.Sprint(seen); got != want {
			t.Errorf("%s sees\n%s, want\n%s", viewer, got, want)
		}
	}
	if got, all := len(f.View("b").Items()), len(f.State().Items()); got != all-3 { // a's two, and a MeshPolicy that nobody heeds
		t.Errorf("b sees %d of %d", got, all)
	}
}

// TestSince: earlier view plus difference is the later view, whatever happened.
func TestSince(t *testing.T) {
	w := world{rand.New(rand.NewPCG(7, 7))}
	for range 200 {
		f := fed(policy.V1, w.mesh()...)
		held := map[string]map[policy.Ref]string{}
		views := map[string]*View{}
		for range 10 {
			for _, viewer := range []string{"a", "b", "c"} {
				next := f.View(viewer)
				if views[viewer] == nil {
					views[viewer], held[viewer] = &View{parts: map[string]*part{}}, map[policy.Ref]string{}
				}
				come, gone := next.Since(views[viewer])
				for _, ref := range gone {
					if _, had := held[viewer][ref]; !had {
						t.Fatalf("%s goes and was not there", ref)
					}
					delete(held[viewer], ref)
				}
				for _, item := range come {
					text := string(item.Text())
					if held[viewer][item.Object.Ref()] == text {
						t.Errorf("%s is sent twice", item.Object.Ref())
					}
					held[viewer][item.Object.Ref()] = text
				}
				want := map[policy.Ref]string{}
				for _, item := range next.Items() {
					want[item.Object.Ref()] = string(item.Text())
				}
				if fmt.Sprint(held[viewer]) != fmt.Sprint(want) {
					t.Fatalf("%s holds\n%v, want\n%v", viewer, held[viewer], want)
				}
				views[viewer] = next
			}
			change := Change{Put: []policy.Object{w.object(), w.object(), w.config()}}
			if items := f.State().Items(); len(items) > 0 {
				change.Gone = []policy.Ref{items[0].Object.Ref()}
			}
			f.Apply(change)
		}
	}
}

// TestParseItems: one object of each text, and no text reaches into the next.
func TestParseItems(t *testing.T) {
	var texts [][]byte
	for i := range 5000 {
		texts = append(texts, (&Item{Object: &policy.Pod{Meta: policy.Meta{Name: fmt.Sprint("p", i), Namespace: "n"}}}).Text())
	}
	items, err := ParseItems(texts)
	if err != nil || len(items) != len(texts) {
		t.Fatalf("%d items: %v", len(items), err)
	}
	for i, item := range items {
		if item.Object.Ref().Name != fmt.Sprint("p", i) || !bytes.Equal(item.Text(), texts[i]) {
			t.Fatalf("item %d is %s: %s", i, item.Object.Ref(), item.Text())
		}
	}
	for name, bad := range map[string][]string{
		"two for one":    {string(texts[0]) + "," + string(texts[1]), ""},
		"out of the way": {"]", string(texts[0])},
		"nothing":        {"null"},
		"a list":         {`{"apiVersion":"v1","kind":"List","items":[]}`},
		"a word":         {`"x"`},
		"not known":      {`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x","namespace":"y"}}`},
		"YAML":           {"{apiVersion: v1}"},
	} {
		var texts [][]byte
		for _, text := range bad {
			texts = append(texts, []byte(text))
		}
		if items, err := ParseItems(texts); err == nil {
			t.Errorf("%s: %d items", name, len(items))
		}
	}
}

// TestDigests: two sets differ in the buckets of what differs, and in no others.
func TestDigests(t *testing.T) {
	var items []*Item
	for i := range 3000 {
		items = append(items, &Item{Object: &policy.Pod{Meta: policy.Meta{Name: fmt.Sprint("p", i), Namespace: "n"}}})
	}
	before := Digests(items)
	slices.Reverse(items)
	if !bytes.Equal(before, Digests(items)) {
		t.Error("the order matters")
	}
	changed := items[5].Object.(*policy.Pod)
	items[5] = &Item{Object: &policy.Pod{Meta: changed.Meta, Spec: policy.PodSpec{ServiceAccountName: "other"}}}
	if got := Differing(before, Digests(items)); len(got) != 1 || got[0] != Bucket(changed.Ref()) {
		t.Errorf("differ: %v", got)
	}
	if got := Differing(before, before[1:]); len(got) != Buckets {
		t.Errorf("a short one differs in %d", len(got))
	}
	if got := Differing(Digests(nil), make([]byte, Buckets*DigestSize)); len(got) != 0 {
		t.Errorf("nothing differs from nothing in %v", got)
	}
}
