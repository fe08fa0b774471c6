package statedir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
)

// TestWatchPolicy: files count as they are, and as one; one that cannot be read
// leaves everything as it was.
func TestWatchPolicy(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var mu sync.Mutex
	var told []string
	feed := policyfeed.New(policy.Auto)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		d.WatchPolicy(ctx, "istio-system", feed, func(err error) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, err.Error())
		})
	}()
	defer func() { cancel(); <-ended }()
	until := func(what string, ok func() bool) {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); !ok(); {
			if time.Now().After(deadline) {
				t.Fatalf("not in time: %s; told: %v", what, told)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
	holds := func(want string) func() bool {
		return func() bool {
			s := feed.State()
			if s.Snapshot == nil {
				return false
			}
			got := ""
			for _, name := range s.Snapshot.Namespaces() {
				got += name + " "
			}
			return strings.TrimSpace(got) == want
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(path, PolicyFolder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	object := func(ns string) string {
		return fmt.Sprintf("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: p, namespace: %s}}\n", ns)
	}
	until("no folder", holds(""))
	if err := os.Mkdir(filepath.Join(path, PolicyFolder), 0o700); err != nil {
		t.Fatal(err)
	}
	write("a.yaml", object("a"))
	write("README", "not read")
	until("one file", holds("a"))
	write("b.yaml", object("b")+"---\n"+object("c"))
	until("two files", holds("a b c"))
	write("b.yaml", "{apiVersion: security.istio.io/v1, kind: Peer")
	until("the broken file is told", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == 1 })
	if !holds("a b c")() || !strings.Contains(told[0], "policy/b.yaml") {
		t.Errorf("after a broken file: %v, told %v", feed.State().Snapshot.Namespaces(), told)
	}
	write("b.yaml", object("a"))
	until("a second object of one name is told", func() bool { mu.Lock(); defer mu.Unlock(); return len(told) == 2 })
	until("the folder is not heard of", func() bool {
		unread := feed.State().Unread
		return len(unread) == 1 && unread[0].Old && strings.Contains(unread[0].String(), "folder policy is not heard of, and what is known of it may be old: ")
	})
	if err := os.Remove(filepath.Join(path, PolicyFolder, "b.yaml")); err != nil {
		t.Fatal(err)
	}
	until("a file less", func() bool { return holds("a")() && len(feed.State().Unread) == 0 })
	if len(told) != 2 || !strings.Contains(told[1], "PeerAuthentication/a/p is there twice") {
		t.Errorf("told %v", told)
	}
	mesh := func(namespace, text string) string {
		return fmt.Sprintf("{apiVersion: v1, kind: ConfigMap, metadata: {name: istio, namespace: %s}, data: {mesh: '%s'}}\n", namespace, text)
	}
	domain := func(want string) func() bool {
		return func() bool { return feed.State().Snapshot.TrustDomain() == want }
	}
	write("mesh.yaml", mesh("istio-system", "trustDomain: own")+"---\n"+mesh("other", "trustDomain: other"))
	until("the mesh config", domain("own"))
	until("the mesh config of another namespace is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 3 && strings.Contains(told[2], "mesh.yaml: ConfigMap other/istio is ignored")
	})
	if !domain("own")() {
		t.Errorf("another mesh's config counts: %s", feed.State().Snapshot.TrustDomain())
	}
	write("mesh.yaml", mesh("istio-system", ""))
	until("an empty mesh config is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(told) == 4 && strings.Contains(told[3], `policy stays as it was`) && strings.Contains(told[3], `mesh: "{}" means defaults`)
	})
	if !domain("own")() {
		t.Errorf("an empty mesh config counts: %s", feed.State().Snapshot.TrustDomain())
	}
	write("b.yaml", strings.Repeat("--- 1\n", policy.MaxDocuments+1))
	until("a file of too many documents is told", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return strings.Contains(told[len(told)-1], "has more than")
	})
}
