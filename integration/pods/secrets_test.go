package pods

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
)

// ttl, earliest and grace are what lifeFlags make of a certificate's life: it may
// be renewed from earliest on, and must be by the time that grace begins.
const (
	ttl      = 2 * time.Minute
	grace    = ttl / 2
	earliest = ttl - grace - ttl*3/10 // the jitter
)

// watcher looks at the Secrets of the mesh all the time.
type watcher struct {
	mu      sync.Mutex
	seen    map[string]leaf
	late    time.Duration // the furthest into its grace that any Secret has been
	expired []string
}

type leaf struct {
	version  string
	notAfter time.Time
}

// watchSecrets looks until the test ends.
func watchSecrets(t *testing.T) *watcher {
	w := &watcher{seen: map[string]leaf{}}
	ctx, stop := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			if list, err := secrets(ctx); err == nil { // else the API server is one of the faults
				w.look(time.Now(), list)
			}
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() { stop(); work.Wait() })
	return w
}

func secrets(ctx context.Context) ([]corev1.Secret, error) {
	list, err := plane.Client.CoreV1().Secrets(mesh).List(ctx, metav1.ListOptions{FieldSelector: "type=istio.io/key-and-cert", ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// look takes in what the Secrets are at now.
func (w *watcher) look(now time.Time, list []corev1.Secret) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range list {
		one := w.seen[s.Name]
		if one.version != s.ResourceVersion {
			chain, err := trust.ParseCertificates(s.Data["cert-chain.pem"])
			if err != nil {
				continue // a fault of the test's; its own check tells
			}
			one = leaf{s.ResourceVersion, chain[0].NotAfter}
			w.seen[s.Name] = one
		}
		w.late = max(w.late, grace-one.notAfter.Sub(now))
		if now.After(one.notAfter) {
			w.expired = append(w.expired, s.Name)
		}
	}
}

// reset forgets how late Secrets have been, and tells.
func (w *watcher) reset() (late time.Duration, expired []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	late, expired = w.late, w.expired
	w.late, w.expired = 0, nil
	return late, expired
}

// complete is nil when every service account has a Secret that is not yet in its
// grace.
func complete(ctx context.Context, count int) error {
	list, err := secrets(ctx)
	if err != nil {
		return err
	}
	fresh := 0
	for _, s := range list {
		chain, err := trust.ParseCertificates(s.Data["cert-chain.pem"])
		if err != nil {
			return fmt.Errorf("Secret %s: %w", s.Name, err)
		}
		if left := time.Until(chain[0].NotAfter); left < grace-slack || left > ttl {
			return fmt.Errorf("Secret %s has %s left of %s", s.Name, left.Round(time.Second), ttl)
		}
		fresh++
	}
	if fresh != count {
		return fmt.Errorf("%d Secrets, want %d", fresh, count)
	}
	return nil
}

// slack is what a renewal that is due may take on a machine that does much else.
const slack = 10 * time.Second

// write is one of Citadel's that the API server answered well.
type write struct {
	Verb  string
	Stage string
	User  struct {
		Username string
		Extra    map[string][]string
	}
	ObjectRef                struct{ Resource, Subresource, Namespace, Name string }
	ResponseStatus           struct{ Code int }
	RequestReceivedTimestamp time.Time
}

// pod is who wrote.
func (w write) pod() string {
	return strings.Join(w.User.Extra["authentication.kubernetes.io/pod-name"], ",")
}

// writes are those of Secrets of the mesh since a time, oldest first.
func writes(t testing.TB, since time.Time) []write {
	t.Helper()
	file := must(os.Open(filepath.Join(plane.Dir, "audit.log")))(t)
	defer file.Close()
	var all []write
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if !strings.Contains(lines.Text(), `"username":"`+citadelUser+`"`) || !strings.Contains(lines.Text(), `"resource":"secrets"`) {
			continue
		}
		var w write
		if err := json.Unmarshal(lines.Bytes(), &w); err != nil {
			var cut *json.SyntaxError
			if errors.As(err, &cut) {
				continue // being written
			}
			t.Fatal(err)
		}
		changes := w.Verb == "create" || w.Verb == "update" || w.Verb == "delete"
		if changes && w.Stage == "ResponseComplete" && w.ResponseStatus.Code/100 == 2 && w.ObjectRef.Namespace == mesh && !w.RequestReceivedTimestamp.Before(since) {
			all = append(all, w)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return all
}

// tooOften are the writes since a time that came before the Secret that they
// replace could be due. What is deleted was somebody's wish.
func tooOften(t testing.TB, since time.Time) []string {
	t.Helper()
	last := map[string]time.Time{}
	var found []string
	for _, w := range writes(t, since.Add(-ttl)) {
		if w.Verb == "delete" || strings.HasPrefix(w.ObjectRef.Name, "istio."+newcomer) { // who comes and goes
			delete(last, w.ObjectRef.Name)
			continue
		}
		before, known := last[w.ObjectRef.Name]
		at := w.RequestReceivedTimestamp
		if gap := at.Sub(before); known && at.After(since) && gap < earliest-slack/2 { // the first write may have been long under way
			found = append(found, fmt.Sprintf("%s %s after %s by %s", w.Verb, w.ObjectRef.Name, gap.Round(time.Second), w.pod()))
		}
		last[w.ObjectRef.Name] = at
	}
	return found
}
