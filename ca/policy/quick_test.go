package policy

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

const meshes, questions = 1500, 12

// TestNaive compares the resolver with one that has no indexes, on random
// meshes: those of a fixed seed, and others each time.
func TestNaive(t *testing.T) {
	for _, seed := range []uint64{1, rand.Uint64()} {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			for i := range uint64(meshes) {
				w := world{rand.New(rand.NewPCG(seed, i))}
				var objects []Object
				for range w.IntN(30) {
					objects = append(objects, w.object())
				}
				g := []Generation{Legacy, V1Alpha1, V1}[i%3]
				for range questions {
					if q := w.query(); disagree(g, objects, q) != "" {
						fail(t, g, objects, q)
						return
					}
				}
			}
		})
	}
}

// disagree says how the two differ; empty when they agree.
func disagree(g Generation, objects []Object, q Query) string {
	objects = latest(objects)
	d := New(g, objects...).Resolve(q)
	want := newNaive(g, objects).resolve(q)
	got := naiveAnswer{d.Server, d.Client, d.Verdict, d.ServerBy.String(), d.ClientBy.String()}
	if got == want {
		return ""
	}
	return fmt.Sprintf("got  %v\nwant %v", got, want)
}

// fail takes objects away as long as the two still differ, and reports the rest.
func fail(t *testing.T, g Generation, objects []Object, q Query) {
	t.Helper()
	objects = latest(objects)
	for i := 0; i < len(objects); {
		if fewer := slices.Delete(slices.Clone(objects), i, i+1); disagree(g, fewer, q) != "" {
			objects, i = fewer, 0
		} else {
			i++
		}
	}
	text, err := json.MarshalIndent(objects, "  ", "  ")
	t.Errorf("%s\n%s %+v\n%s %v", disagree(g, objects, q), g, q, text, err)
}

// TestIncremental changes a Snapshot in random ways, and compares it after each
// with one that is made anew of the same objects. The Snapshot before the change
// must still answer as it did.
func TestIncremental(t *testing.T) {
	for _, seed := range []uint64{1, rand.Uint64()} {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			for i := range uint64(60) {
				w := world{rand.New(rand.NewPCG(seed, i))}
				changing(t, w, []Generation{Auto, Legacy, V1Alpha1, V1}[i%4])
			}
		})
	}
}

func changing(t *testing.T, w world, g Generation) {
	t.Helper()
	there := map[Ref]Object{}
	s := New(g)
	for range 40 {
		var o Object = w.object()
		if w.IntN(4) == 0 {
			o = &ServiceEntry{Meta: w.meta("e1", "e2"), Spec: ServiceEntrySpec{Hosts: []string{w.pick("h1.example.com", "*.example.com", "s1.a"+serviceSuffix)},
				Location: Location(w.IntN(2)), Ports: []EntryPort{{Number: 80}}, WorkloadSelector: &EntrySelector{Labels: w.selector()}}}
		}
		questions := []Query{w.query(), w.query(), {Client{Namespace: w.namespace(), Sidecar: true}, Server{Host: "h1.example.com", Port: 80}}}
		before := answers(s, questions)
		next := s.With(o)
		if there[o.Ref()] = o; w.IntN(3) == 0 {
			next = s.Without(o.Ref())
			delete(there, o.Ref())
		}
		var objects []Object
		for _, o := range there {
			objects = append(objects, o)
		}
		fresh := New(g, objects...)
		if got, want := answers(next, questions), answers(fresh, questions); got != want {
			t.Fatalf("after a change of %s:\ngot  %s\nwant %s\n%s", o.Ref(), got, want, show(objects))
		}
		if got, want := fmt.Sprint(next.Problems()), fmt.Sprint(fresh.Problems()); got != want {
			t.Fatalf("after a change of %s: problems\ngot  %s\nwant %s", o.Ref(), got, want)
		}
		if after := answers(s, questions); after != before {
			t.Fatalf("a change of %s changed the Snapshot before it", o.Ref())
		}
		s = next
	}
}

func answers(s *Snapshot, questions []Query) (text string) {
	for _, q := range questions {
		text += fmt.Sprintf("%+v\n", s.Resolve(q).Explain())
	}
	return text
}
