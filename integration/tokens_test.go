package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/kube"
)

var tokenDomain = spiffeid.RequireTrustDomainFromString("cluster.local")

// tokenRights are what the CSR API needs of Kubernetes beside what deploy/
// gives; the API server's keys may be read by every service account.
var tokenRights = []rbacv1.PolicyRule{
	{APIGroups: []string{"authentication.k8s.io"}, Resources: []string{"tokenreviews"}, Verbs: []string{"create"}},
	{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list", "watch"}},
}

// tokenClient is a client with those rights and no others.
func tokenClient(t *testing.T) kubernetes.Interface {
	t.Helper()
	s := &site{storage: makeNamespace(t, nil)}
	s.bareAccount(t, "reviewer")
	name := metav1.ObjectMeta{Name: s.storage + "-tokens"}
	must(plane.Client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: name, Rules: tokenRights}, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: name, Subjects: s.subjects("reviewer"), RoleRef: clusterRole(name.Name)}, metav1.CreateOptions{}))(t)
	a := account{user: "system:serviceaccount:" + s.storage + ":reviewer", kubeconfig: t.TempDir() + "/kubeconfig"}
	if err := plane.ServiceAccount(t.Context(), s.storage, "reviewer", a.kubeconfig); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		return errors.Join(a.may("create", "authentication.k8s.io", "tokenreviews", ""), a.may("watch", "", "pods", ""))
	})
	return must(kube.Client(must(kube.Config(a.kubeconfig, "citadel/test"))(t)))(t)
}

// tokenAuthenticator is one with the API server's keys.
func tokenAuthenticator(t *testing.T, client kubernetes.Interface, ttl time.Duration) *authn.KubernetesToken {
	t.Helper()
	keys := authn.NewKeys(kube.TokenKeys(client), func(err error) { t.Log(err) })
	runFor(t, keys.Run)
	a := must(authn.NewKubernetesToken(authn.KubernetesTokens{TrustDomain: tokenDomain, Keys: keys, Review: kube.Review(client), ReviewTTL: ttl}))(t)
	within(t, patience, func() error {
		if keys.Issuer() == "" {
			return errors.New("the keys have not been fetched")
		}
		return nil
	})
	return a
}

// runFor runs something for as long as the test does.
func runFor(t *testing.T, run func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		run(ctx)
	}()
	t.Cleanup(func() { cancel(); <-ended })
}

// makePod makes one that runs nowhere, or as if it did on a node.
func makePod(t *testing.T, namespace, account, name, node string) *corev1.Pod {
	t.Helper()
	return must(plane.Client.CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{ServiceAccountName: account, NodeName: node, Containers: []corev1.Container{{Name: "c", Image: "none"}},
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}}},
	}, metav1.CreateOptions{}))(t)
}

// tokenOf requests a token; it is bound to the pod, if there is one.
func tokenOf(t *testing.T, namespace, account string, pod *corev1.Pod, audiences ...string) string {
	t.Helper()
	spec := authenticationv1.TokenRequestSpec{Audiences: audiences}
	if pod != nil {
		spec.BoundObjectRef = &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID}
	}
	return must(plane.Client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account,
		&authenticationv1.TokenRequest{Spec: spec}, metav1.CreateOptions{}))(t).Status.Token
}

var deletedNow = metav1.DeleteOptions{GracePeriodSeconds: new(int64)}

// TestKubernetesTokens: a token of TokenRequest for istio-ca says who calls and
// in which pod; others are refused.
func TestKubernetesTokens(t *testing.T) {
	t.Parallel()
	a := tokenAuthenticator(t, tokenClient(t), time.Minute)
	ns := makeNamespace(t, nil)
	makeAccount(t, ns, "web")
	pod := makePod(t, ns, "web", "web-0", "")
	try := func(token string) (authn.Identity, error) {
		return a.Authenticate(t.Context(), time.Now(), authn.Request{Bearer: token})
	}
	id, err := try(tokenOf(t, ns, "web", pod, "istio-ca"))
	if want := (authn.Pod{Namespace: ns, Name: "web-0", UID: string(pod.UID), ServiceAccount: "web"}); err != nil || id.Pod != want {
		t.Errorf("of a pod: %v, %v", id.Pod, err)
	}
	if want := "spiffe://cluster.local/ns/" + ns + "/sa/web"; id.Caller.ID().String() != want {
		t.Errorf("of a pod: %s, want %s", id.Caller.ID(), want)
	}
	if evidence := fmt.Sprint(id.Caller); !strings.Contains(evidence, "token of pod web-0 (uid "+string(pod.UID)+"), jti ") {
		t.Errorf("evidence %s", evidence)
	}
	if id, err := try(tokenOf(t, ns, "web", nil, "vault", "istio-ca")); err != nil || id.Pod != (authn.Pod{}) {
		t.Errorf("of no pod: %v, %v", id, err)
	}
	good := tokenOf(t, ns, "web", pod, "istio-ca")
	for text, token := range map[string]string{
		"the token is not for us: its audience must be istio-ca": tokenOf(t, ns, "web", pod, "vault"),
		"the token is not for us":                                tokenOf(t, ns, "web", pod), // for the API server
		"the token's signature is wrong":                         good[:len(good)-8] + "AAAAAAAA",
		"the token is one of a Secret, which has no end":         secretToken(t, ns, "web"),
		authn.ErrNoProof.Error():                                 "words",
	} {
		if _, err := try(token); err == nil || !strings.HasPrefix(err.Error(), text) {
			t.Errorf("%v, want %q", err, text)
		}
	}
}

// secretToken is one of the kind that has no end.
func secretToken(t *testing.T, namespace, account string) (token string) {
	t.Helper()
	must(plane.Client.CoreV1().Secrets(namespace).Create(t.Context(), &corev1.Secret{Type: corev1.SecretTypeServiceAccountToken,
		ObjectMeta: metav1.ObjectMeta{Name: "legacy", Annotations: map[string]string{corev1.ServiceAccountNameKey: account}}}, metav1.CreateOptions{}))(t)
	within(t, patience, func() error {
		secret, err := plane.Client.CoreV1().Secrets(namespace).Get(t.Context(), "legacy", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if token = string(secret.Data[corev1.ServiceAccountTokenKey]); token == "" {
			return errors.New("the Secret has no token yet")
		}
		return nil
	})
	return token
}

// TestTokensOfTheDeleted are refused no later than the TTL after the pod or the
// service account is gone, the time included for which the API server itself
// still accepts them.
func TestTokensOfTheDeleted(t *testing.T) {
	t.Parallel()
	const ttl = 15 * time.Second
	a := tokenAuthenticator(t, tokenClient(t), ttl)
	for what, remove := range map[string]func(ns string) error{
		"pod": func(ns string) error { return plane.Client.CoreV1().Pods(ns).Delete(t.Context(), "web-0", deletedNow) },
		"service account": func(ns string) error {
			return plane.Client.CoreV1().ServiceAccounts(ns).Delete(t.Context(), "web", metav1.DeleteOptions{})
		},
	} {
		t.Run(what, func(t *testing.T) {
			ns := makeNamespace(t, nil)
			makeAccount(t, ns, "web")
			token := tokenOf(t, ns, "web", makePod(t, ns, "web", "web-0", ""), "istio-ca")
			try := func() error {
				_, err := a.Authenticate(t.Context(), time.Now(), authn.Request{Bearer: token})
				return err
			}
			if err := try(); err != nil {
				t.Fatal(err)
			}
			if err := remove(ns); err != nil {
				t.Fatal(err)
			}
			gone := time.Now()
			if err := try(); err != nil {
				t.Errorf("the API server was asked again within the TTL: %v", err)
			}
			within(t, patience, func() error {
				if err := try(); err == nil || !strings.HasPrefix(err.Error(), "the API server does not accept the token") {
					return fmt.Errorf("not refused: %v", err)
				}
				return nil
			})
			took := time.Since(gone)
			t.Logf("refused %s after the %s was deleted", took, what)
			if took > ttl+time.Second {
				t.Errorf("refused only %s after the %s was deleted, with a TTL of %s", took, what, ttl)
			}
		})
	}
}

// TestNodeProxies: the proxy of a node may ask for what runs there, and for
// nothing else; what it may, it knows from a real API server's watch.
func TestNodeProxies(t *testing.T) {
	t.Parallel()
	client := tokenClient(t)
	ns := makeNamespace(t, nil)
	for _, account := range []string{"proxy", "web", "away"} {
		makeAccount(t, ns, account)
	}
	for _, node := range []string{"1", "2"} {
		name := ns + "-" + node
		must(plane.Client.CoreV1().Nodes().Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))(t)
		t.Cleanup(func() { _ = plane.Client.CoreV1().Nodes().Delete(context.Background(), name, metav1.DeleteOptions{}) })
	}
	makePod(t, ns, "web", "web-0", ns+"-1")
	makePod(t, ns, "away", "away-0", ns+"-2")
	first := makePod(t, ns, "proxy", "proxy", ns+"-1")
	token := tokenOf(t, ns, "proxy", first, "istio-ca")
	id := must(tokenAuthenticator(t, client, time.Minute).Authenticate(t.Context(), time.Now(), authn.Request{Bearer: token}))(t)

	nodes := must(kube.NewNodes(client, tokenDomain, []string{ns + "/proxy"}))(t)
	may := func(account string) error {
		return nodes.MayImpersonate(t.Context(), id, must(ca.ServiceAccountID(tokenDomain, ns, account))(t))
	}
	denied := func(err error) error {
		if e, ok := errors.AsType[*ca.Error](err); !ok || e.Class != ca.Denied {
			return fmt.Errorf("not denied: %v", err)
		}
		return nil
	}
	if _, ok := errors.AsType[*authn.Unavailable](may("web")); !ok {
		t.Errorf("before the pods are known: %v", may("web"))
	}
	runFor(t, nodes.Run)
	within(t, patience, func() error { return may("web") })
	if err := denied(may("away")); err != nil {
		t.Errorf("on another node: %v", err)
	}
	makePod(t, ns, "away", "away-1", ns+"-1")
	within(t, patience, func() error { return may("away") })
	if err := plane.Client.CoreV1().Pods(ns).Delete(t.Context(), "away-1", deletedNow); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error { return denied(may("away")) })
	if err := plane.Client.CoreV1().Pods(ns).Delete(t.Context(), "proxy", deletedNow); err != nil {
		t.Fatal(err)
	}
	makePod(t, ns, "proxy", "proxy", ns+"-1")
	within(t, patience, func() error { return denied(may("web")) })
	stays(t, 2*time.Second, func() error { return denied(may("web")) }) // the new pod is another one
}
