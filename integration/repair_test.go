package integration

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
)

// soon is how long a repair may take on a machine that does much else; alone,
// it takes a fraction of a second.
const soon = 20 * time.Second

// damage is something that somebody does to a Secret.
type damage struct {
	rule string
	do   func(damaged, another *corev1.Secret)
	want []string // the writes that repair it
}

func damages(t *testing.T) []damage {
	otherRoot := catest.Root(t, time.Now(), catest.Spec{Name: "somebody else"}).PEM()
	update, again := []string{"update"}, []string{"delete", "create"}
	set := func(key string, value []byte) func(d, _ *corev1.Secret) {
		return func(d, _ *corev1.Secret) { d.Data[key] = value }
	}
	copied := func(keys ...string) func(d, another *corev1.Secret) {
		return func(d, another *corev1.Secret) {
			for _, key := range keys {
				d.Data[key] = another.Data[key]
			}
		}
	}
	return []damage{
		{"emptied", func(d, _ *corev1.Secret) { d.Data = nil }, update},
		{"key removed", func(d, _ *corev1.Secret) { delete(d.Data, keyKey) }, update},
		{"key is another's", copied(keyKey), update},
		{"key is damaged", set(keyKey, []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")), update},
		{"chain is another's", copied(chainKey), update},
		{"chain and key are another's", copied(chainKey, keyKey), update},
		{"chain truncated", func(d, _ *corev1.Secret) { d.Data[chainKey] = d.Data[chainKey][:len(d.Data[chainKey])/2] }, update},
		{"chain removed", func(d, _ *corev1.Secret) { delete(d.Data, chainKey) }, update},
		{"chain lacks the issuer", func(d, _ *corev1.Secret) {
			end := bytes.Index(d.Data[chainKey], []byte("-----END CERTIFICATE-----\n")) + len("-----END CERTIFICATE-----\n")
			d.Data[chainKey] = d.Data[chainKey][:end]
		}, update},
		{"roots replaced", set(rootKey, otherRoot), update},
		{"roots removed", func(d, _ *corev1.Secret) { delete(d.Data, rootKey) }, update},
		{"roots damaged", set(rootKey, []byte("no PEM")), update},
		{"a root added", func(d, _ *corev1.Secret) { d.Data[rootKey] = slices.Concat(d.Data[rootKey], otherRoot) }, update},
		{"annotation edited", func(d, _ *corev1.Secret) { d.Annotations[annotation] = "another" }, update},
		{"annotation removed", func(d, _ *corev1.Secret) { delete(d.Annotations, annotation) }, update},
		{"label removed", func(d, _ *corev1.Secret) { delete(d.Labels, marker) }, update},
		{"owner removed", func(d, _ *corev1.Secret) { d.OwnerReferences = nil }, update},
		{"owner is another", func(d, another *corev1.Secret) { d.OwnerReferences = another.OwnerReferences }, update},
		{"emptied and made immutable", func(d, _ *corev1.Secret) { d.Data, d.Immutable = nil, new(true) }, again},
	}
}

func TestEditedSecretIsRepairedInOneWrite(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	operator := catest.Root(t, time.Now(), catest.Spec{Name: "operator's root"}).Intermediate(t, time.Now(), catest.Spec{Name: "operator's issuer"})
	createSecret(t, plugged(t, s.storage, operator))
	p := s.start(t)
	roots := []*x509.Certificate{operator.Root().Cert}
	another := right(t, makeAccount(t, ns, "another"), roots)
	since := map[string]mark{}
	table := damages(t)
	for i, d := range table {
		t.Run(d.rule, func(t *testing.T) {
			sa := makeAccount(t, ns, fmt.Sprintf("sa-%d", i))
			healthy := right(t, sa, roots)
			since[sa.Name] = now(t)
			damaged := d.inflict(t, healthy, another)
			want := wanted{account: sa, roots: roots}
			if want.flaw(damaged) == nil {
				t.Fatal("the test does no damage")
			}
			checkRepair(t, damaged, repaired(t, damaged, want))
		})
	}
	right(t, makeAccount(t, ns, "last"), roots)
	for i, d := range table {
		name := fmt.Sprintf("sa-%d", i)
		if got := verbs(writes(t, since[name], p.user, "secrets", ns, "istio."+name)); !slices.Equal(got, d.want) {
			t.Errorf("%s: repaired by %v, want %v", d.rule, got, d.want)
		}
	}
}

// inflict does the damage, and adds what a repair must keep.
func (d damage) inflict(t *testing.T, healthy, another *corev1.Secret) *corev1.Secret {
	t.Helper()
	secret := healthy.DeepCopy()
	d.do(secret, another)
	secret.Labels = withEntry(secret.Labels, "team", "x")
	secret.Annotations = withEntry(secret.Annotations, "note", "y")
	secret.Data = withEntry(secret.Data, "extra", []byte("z"))
	return must(plane.Client.CoreV1().Secrets(secret.Namespace).Update(t.Context(), secret, metav1.UpdateOptions{}))(t)
}

func checkRepair(t *testing.T, damaged, after *corev1.Secret) {
	t.Helper()
	if err := different(damaged, after); err != nil {
		t.Error(err)
	}
	if after.Labels["team"] != "x" || after.Annotations["note"] != "y" || string(after.Data["extra"]) != "z" {
		t.Errorf("what others added is lost: %v %v %v", after.Labels, after.Annotations, sortedKeys(after.Data))
	}
}

// repaired waits for another Secret than the damaged one that is right.
func repaired(t *testing.T, damaged *corev1.Secret, want wanted) *corev1.Secret {
	t.Helper()
	var secret *corev1.Secret
	within(t, soon, func() (err error) {
		if secret, err = getSecret(t.Context(), want.account.Namespace, want.account.Name); err != nil {
			return err
		}
		if secret.ResourceVersion == damaged.ResourceVersion {
			return errors.New("it is as it was damaged")
		}
		return want.flaw(secret)
	})
	return secret
}

func withEntry[V any](m map[string]V, key string, value V) map[string]V {
	out := maps.Clone(m)
	if out == nil {
		out = map[string]V{}
	}
	out[key] = value
	return out
}

func deleteSecret(t *testing.T, secret *corev1.Secret) {
	t.Helper()
	if err := plane.Client.CoreV1().Secrets(secret.Namespace).Delete(t.Context(), secret.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

func TestDeletedSecretIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	roots := s.roots(t)
	sa := makeAccount(t, ns, "sleep")
	before := right(t, sa, roots)
	since := now(t)
	deleteSecret(t, before)
	after := repaired(t, before, wanted{account: sa, roots: roots})
	if err := different(before, after); err != nil {
		t.Error(err)
	}
	if got := p.metric(t, "citadel_secret_controller_secret_deleted_cert_count"); got != 1 {
		t.Errorf("metric counts %v deleted Secrets, want 1", got)
	}
	right(t, makeAccount(t, ns, "last"), roots)
	if got := verbs(writes(t, since, p.user, "secrets", ns, before.Name)); fmt.Sprint(got) != "[create]" {
		t.Errorf("Secret was made again by %v, want one create", got)
	}
}

// replaceBehind deletes a Secret and makes another of its name before Citadel
// can see it.
func replaceBehind(t *testing.T, p *process, old, replacement *corev1.Secret) {
	t.Helper()
	freeze(t, p)
	defer thaw(t, p)
	deleteSecret(t, old)
	createSecret(t, replacement)
}

func freeze(t *testing.T, p *process) {
	t.Helper()
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
}

func thaw(t *testing.T, p *process) {
	t.Helper()
	if err := p.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

func TestForeignSecretIsLeftAloneAndTold(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	roots := s.roots(t)
	foreign := func(name string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, StringData: map[string]string{"mine": "x"}}
	}
	early := createSecret(t, foreign("istio.early"))
	before := makeAccount(t, ns, "early")
	after := makeAccount(t, ns, "late")
	replaceBehind(t, p, right(t, after, roots), foreign("istio.late"))
	for _, sa := range []*corev1.ServiceAccount{before, after} {
		within(t, patience, func() error { return eventOn(t, sa, "SecretNameTaken", "left alone") })
		secret := must(getSecret(t.Context(), ns, sa.Name))(t)
		if secret.Type != corev1.SecretTypeOpaque || fmt.Sprint(sortedKeys(secret.Data)) != "[mine]" {
			t.Errorf("foreign Secret %s was changed: %s %v", secret.Name, secret.Type, sortedKeys(secret.Data))
		}
		for _, r := range writes(t, p.since, p.user, "secrets", ns, secret.Name) {
			if r.done() && (sa == before || r.Verb != "create") {
				t.Errorf("citadel wrote foreign Secret %s: %s", secret.Name, r)
			}
		}
	}
	deleteSecret(t, early)
	right(t, before, roots)
}

func TestSecretOfAnotherTypeThatBearsOurMarkIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	roots := s.roots(t)
	sa := makeAccount(t, ns, "sleep")
	old := right(t, sa, roots)
	retyped := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: old.Name, Labels: withEntry(old.Labels, "team", "x"),
		Annotations: old.Annotations, OwnerReferences: old.OwnerReferences}, Data: withEntry(old.Data, "extra", []byte("z"))}
	since := now(t)
	replaceBehind(t, p, old, retyped)
	after := right(t, sa, roots)
	if after.Labels["team"] != "x" {
		t.Errorf("labels of others are lost: %v", after.Labels)
	}
	if _, kept := after.Data["extra"]; kept { // a Secret of another type is no Secret of ours with additions
		t.Errorf("data of another type went with it: %v", sortedKeys(after.Data))
	}
	right(t, makeAccount(t, ns, "last"), roots)
	if got := verbs(writes(t, since, p.user, "secrets", ns, old.Name)); fmt.Sprint(got) != "[delete create]" {
		t.Errorf("citadel wrote %v, want a delete and a create", got)
	}
}

func TestSecretOfOurTypeGivesNobodyAnIdentity(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	roots := s.roots(t)
	right(t, makeAccount(t, ns, "sleep"), roots)
	bait := func(name, account string) *corev1.Secret {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Type: secretType}
		if account != "" {
			secret.Annotations = map[string]string{annotation: account}
		}
		return createSecret(t, secret)
	}
	baits := []*corev1.Secret{bait("mine", "sleep"), bait("mine-too", "ghost"), bait("sleep", "sleep"), bait("istiosleep", "sleep"),
		bait("istio.ghost", "sleep"), bait("istio.nobody", ""), bait("istio.other", "ghost")}
	bait("istio.phantom", "phantom") // as a leftover: it goes
	within(t, patience, func() error {
		return noSecret(t, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "phantom"}})
	})
	right(t, makeAccount(t, ns, "after"), roots)
	for _, b := range baits {
		secret := must(plane.Client.CoreV1().Secrets(ns).Get(t.Context(), b.Name, metav1.GetOptions{}))(t)
		if secret.ResourceVersion != b.ResourceVersion {
			t.Errorf("citadel wrote Secret %s: %v", b.Name, sortedKeys(secret.Data))
		}
	}
	for _, r := range p.signatures(t) {
		if r.Method != "own server" && !slices.Contains([]string{"default", "sleep", "after"}, lastSegment(r.Identity)) {
			t.Errorf("citadel signed for %s", r.Identity)
		}
	}
	// A service account that comes to such a Secret gets its own identity.
	right(t, makeAccount(t, ns, "ghost"), roots)
}

func lastSegment(id string) string {
	return id[bytes.LastIndexByte([]byte(id), '/')+1:]
}

func TestContendedSecretIsWrittenLessAndLess(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	roots := s.roots(t)
	sa := makeAccount(t, ns, "contended")
	right(t, sa, roots)
	since := now(t)
	var undone atomic.Int64
	for end := time.Now().Add(12 * time.Second); time.Now().Before(end); {
		switch err := undo(t.Context(), sa); {
		case err == nil:
			undone.Add(1)
		case !errors.Is(err, errNothingToUndo):
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
	}
	right(t, makeAccount(t, ns, "calm"), roots) // others are served meanwhile
	// Two at once, then after pauses of 1s, 2s, 4s, 8s.
	if got := len(writes(t, since, p.user, "secrets", ns, "istio.contended")); got < 3 || got > 6 {
		t.Errorf("citadel wrote %d times in 12s against %d times that somebody undid it, want 3 to 6", got, undone.Load())
	}
	right(t, sa, roots) // who gives up first is not citadel
}

var errNothingToUndo = errors.New("nothing to undo")

// undo empties a Secret that citadel has filled.
func undo(ctx context.Context, sa *corev1.ServiceAccount) error {
	secret, err := getSecret(ctx, sa.Namespace, sa.Name)
	if err != nil {
		return err
	}
	if len(secret.Data) == 0 {
		return errNothingToUndo
	}
	secret.Data = nil
	_, err = plane.Client.CoreV1().Secrets(sa.Namespace).Update(ctx, secret, metav1.UpdateOptions{})
	if apierrors.IsConflict(err) {
		return errNothingToUndo
	}
	return err
}
