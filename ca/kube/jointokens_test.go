package kube

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"citadel/ca/authn"
)

func newJoinTokens(t *testing.T) (JoinTokens, *fake.Clientset, authn.JoinToken) {
	t.Helper()
	client := fake.NewClientset()
	j := JoinTokens{Client: client, Namespace: "istio-system"}
	token, _, err := authn.NewJoinToken(time.Now(), "vm", "web", time.Hour, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Create(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	return j, client, token
}

func take(t *authn.JoinToken) (bool, error) {
	t.Keys = append(t.Keys, "k")
	return true, nil
}

func TestJoinTokensInSecrets(t *testing.T) {
	j, client, token := newJoinTokens(t)
	secret, err := client.CoreV1().Secrets("istio-system").Get(t.Context(), "istio-citadel-join-"+token.ID, metav1.GetOptions{})
	if err != nil || secret.Type != "citadel.io/join-token" {
		t.Fatalf("%v, %v", secret, err)
	}
	if err := j.Use(t.Context(), token.ID, take); err != nil {
		t.Fatal(err)
	}
	all, err := j.List(t.Context())
	if err != nil || len(all) != 1 || len(all[0].Keys) != 1 || !all[0].Expires.Equal(token.Expires) {
		t.Errorf("%+v, %v", all, err)
	}
	if err := j.Revoke(t.Context(), token.ID); err != nil {
		t.Error(err)
	}
	for _, err := range []error{j.Use(t.Context(), token.ID, take), j.Revoke(t.Context(), token.ID)} {
		if !errors.Is(err, authn.ErrNoJoinToken) {
			t.Errorf("revoked: %v", err)
		}
	}
}

// TestJoinTokenIsReadAnewAfterAConflict, or two replicas would both count the
// one use.
func TestJoinTokenIsReadAnewAfterAConflict(t *testing.T) {
	j, client, token := newJoinTokens(t)
	conflicts := 2
	client.PrependReactor("update", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) {
		conflicts--
		return conflicts >= 0, nil, apierrors.NewConflict(schema.GroupResource{Resource: "secrets"}, "x", errors.New("changed"))
	})
	seen := 0
	if err := j.Use(t.Context(), token.ID, func(t *authn.JoinToken) (bool, error) { seen++; return take(t) }); err != nil || seen != 3 {
		t.Errorf("looked at %d times: %v", seen, err)
	}
}

func TestJoinTokenThatIsNotOne(t *testing.T) {
	j, client, token := newJoinTokens(t)
	secret, err := client.CoreV1().Secrets("istio-system").Get(t.Context(), JoinTokenPrefix+token.ID, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*corev1.Secret){
		"another type": func(s *corev1.Secret) { s.Type = "Opaque" },
		"no JSON":      func(s *corev1.Secret) { s.Data["token.json"] = []byte("{") },
		"another's":    func(s *corev1.Secret) { s.Data["token.json"] = []byte(`{"id":"0000000000"}`) },
		"empty":        func(s *corev1.Secret) { s.Data = nil },
	} {
		bad := secret.DeepCopy()
		edit(bad)
		client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, bad, nil })
		if err := j.Use(t.Context(), token.ID, take); err == nil || !strings.Contains(err.Error(), "no join token is in Secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOldJoinTokensAreSwept(t *testing.T) {
	j, _, token := newJoinTokens(t)
	for after, left := range map[time.Duration]int{25 * time.Hour: 0} {
		if err := j.Sweep(t.Context(), token.Expires.Add(24*time.Hour), 24*time.Hour); err != nil {
			t.Error(err)
		}
		if all, _ := j.List(t.Context()); len(all) != 1 {
			t.Error("a token that is not old was swept")
		}
		if err := j.Sweep(t.Context(), token.Expires.Add(after), 24*time.Hour); err != nil {
			t.Error(err)
		}
		if all, _ := j.List(t.Context()); len(all) != left {
			t.Errorf("%d left", len(all))
		}
	}
}

func TestBansInAConfigMap(t *testing.T) {
	client := fake.NewClientset()
	ctx := context.Background()
	if list, err := ReadBans(ctx, client, "istio-system"); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
	put := func(whom string) error {
		return EditBans(ctx, client, "istio-system", func(l BanList) error { l[whom] = Ban{Reason: "stolen"}; return nil })
	}
	for _, whom := range []string{"spiffe://cluster.local/ns/a/sa/b", "0F:00"} {
		if err := put(whom); err != nil {
			t.Fatal(err)
		}
	}
	if err := put("nobody"); err == nil || !strings.Contains(err.Error(), "neither a SPIFFE ID") {
		t.Errorf("%v", err)
	}
	list, err := ReadBans(ctx, client, "istio-system")
	if err != nil || len(list) != 2 || list["0F:00"].Reason != "stolen" {
		t.Errorf("%v, %v", list, err)
	}
	cm, err := client.CoreV1().ConfigMaps("istio-system").Get(ctx, "istio-citadel-bans", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cm.Data["bans.json"] = "["
	if _, err := client.CoreV1().ConfigMaps("istio-system").Update(ctx, cm, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadBans(ctx, client, "istio-system"); err == nil || !strings.Contains(err.Error(), "istio-citadel-bans, key bans.json, is damaged") {
		t.Errorf("%v", err)
	}
}
