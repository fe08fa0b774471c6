package pods

import (
	"fmt"
	"testing"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// spoilSecrets damages Secrets of service accounts of its own, each of which is
// made right again.
func spoilSecrets(t *testing.T) {
	client := plane.Client.CoreV1().Secrets(mesh)
	update := func(change func(*corev1.Secret)) func(*testing.T, *corev1.Secret) {
		return func(t *testing.T, s *corev1.Secret) {
			change(s)
			must(client.Update(t.Context(), s, metav1.UpdateOptions{}))(t)
		}
	}
	remove := func(t *testing.T, s *corev1.Secret) {
		if err := client.Delete(t.Context(), s.Name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, damage := range map[string]func(*testing.T, *corev1.Secret){
		"edited":     update(func(s *corev1.Secret) { s.Data["key.pem"] = s.Data["root-cert.pem"] }),
		"emptied":    update(func(s *corev1.Secret) { s.Data = nil }),
		"relabelled": update(func(s *corev1.Secret) { s.Labels, s.Annotations = nil, nil }),
		"deleted":    remove,
		"retyped": func(t *testing.T, s *corev1.Secret) {
			remove(t, s)
			retyped := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: s.Name, Labels: s.Labels}, Type: corev1.SecretTypeOpaque, Data: s.Data}
			if _, err := client.Create(t.Context(), retyped, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
				t.Fatal(err) // else Citadel was faster
			}
		},
	} {
		account := newcomer + "-" + name
		if err := makeAccount(t.Context(), account); err != nil {
			t.Fatal(err)
		}
		right := awaitRight(t, mesh, account, "")
		damage(t, right.DeepCopy())
		awaitRight(t, mesh, account, right.ResourceVersion)
		if err := plane.Client.CoreV1().ServiceAccounts(mesh).Delete(t.Context(), account, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitRight returns the Secret of a service account once it is right and of
// another version.
func awaitRight(t *testing.T, namespace, account, version string) *corev1.Secret {
	t.Helper()
	var s *corev1.Secret
	within(t, patience, func() (err error) {
		if s, err = plane.Client.CoreV1().Secrets(namespace).Get(t.Context(), "istio."+account, metav1.GetOptions{}); err != nil {
			return err
		}
		svid, err := x509svid.Parse(s.Data["cert-chain.pem"], s.Data["key.pem"])
		if err != nil {
			return err
		}
		want := fmt.Sprintf("spiffe://cluster.local/ns/%s/sa/%s", namespace, account)
		if s.ResourceVersion == version || s.Type != "istio.io/key-and-cert" || svid.ID.String() != want || s.Labels["app.kubernetes.io/managed-by"] == "" {
			return fmt.Errorf("Secret istio.%s is of type %s, for %s, labelled %v", account, s.Type, svid.ID, s.Labels)
		}
		return nil
	})
	return s
}

// renewNamespace makes a namespace with service accounts, deletes it with all
// that is in it, and makes it again.
func renewNamespace(t *testing.T) {
	const name, count = "victim", 20
	core := plane.Client.CoreV1()
	for range 2 {
		must(core.Namespaces().Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))(t)
		for i := range count {
			must(core.ServiceAccounts(name).Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: accountName(i)}}, metav1.CreateOptions{}))(t)
		}
		for i := range count {
			awaitRight(t, name, accountName(i), "")
		}
		if err := core.Namespaces().Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		within(t, patience, func() error {
			_, err := core.Namespaces().Get(t.Context(), name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return fmt.Errorf("namespace %s is still there: %w", name, err)
		})
	}
}
