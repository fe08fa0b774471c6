package mesh

import (
	"os"
	"strings"
	"testing"
	"time"

	"citadel/ca/policy"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// conflicts calls f for each case of the data files that is a conflict.
func conflicts(t *testing.T, f func(c *policy.Case, w *World, d policy.Decision)) {
	t.Helper()
	for _, file := range []string{"cases.yaml", "own.yaml"} {
		text, err := os.ReadFile("../../../ca/policy/testdata/" + file)
		if err != nil {
			t.Fatal(err)
		}
		cases, err := policy.DecodeCases(file, text)
		if err != nil {
			t.Fatal(err)
		}
		for i := range cases.Resolve {
			c := &cases.Resolve[i]
			objects := c.Objects
			if c.Mesh != nil {
				objects = append(objects, c.Mesh)
			}
			w := NewWorld(c.Generation, objects)
			if d := w.Resolve(c.Query); d.Verdict == policy.Conflict {
				f(c, w, d)
			}
		}
	}
}

// TestFixMends: of each conflict that policy can mend, what is proposed does,
// once it is applied as it was written.
func TestFixMends(t *testing.T) {
	tried, without := 0, 0
	conflicts(t, func(c *policy.Case, w *World, d policy.Decision) {
		fix := w.Fix(now, d)
		if d.Symptom == policy.UnknownServer || d.Symptom == policy.DependsOnServer {
			if without++; fix != nil {
				t.Errorf("%s: a fix of what cannot be known: %+v", c.Name, fix)
			}
			return
		}
		tried++
		if fix == nil {
			t.Errorf("%s: no fix; server %s by %s, client %s by %s", c.Name, d.Server, d.ServerBy, d.Client, d.ClientBy)
			return
		}
		if len(fix.Breaks) > 0 {
			t.Errorf("%s: %s breaks %v", c.Name, fix.Text, fix.Breaks)
		}
		after := applied(t, w, fix)
		if got := after.Resolve(c.Query); got.Verdict != policy.OK {
			t.Errorf("%s: %s: still %s %s", c.Name, fix.Text, got.Server, got.Client)
		}
		if t.Logf("%s: %s by %s, %s by %s: %s", c.Name, d.Server, d.ServerBy, d.Client, d.ClientBy, fix.Text); testing.Verbose() {
			for _, change := range fix.Changes {
				t.Logf("    %s", change.Command)
			}
		}
	})
	if tried < 80 || without < 3 {
		t.Errorf("%d conflicts have a fix, %d none: the files hold more", tried, without)
	}
}

// applied goes by the texts of a fix alone.
func applied(t *testing.T, w *World, fix *Fix) *World {
	t.Helper()
	for _, c := range fix.Changes {
		var o policy.Object
		if c.Action == "create" {
			all, err := policy.Decode("fix", []byte(c.YAML))
			if err != nil || len(all) != 1 || strings.Contains(c.YAML, "\n") {
				t.Fatalf("%s: %v", c.YAML, err)
			}
			o = all[0]
		} else {
			o = patched(t, w, c)
		}
		if o.Ref().String() != c.Object {
			t.Errorf("%s is said to change %s", o.Ref(), c.Object)
		}
		w = w.With(now, o)
	}
	return w
}
