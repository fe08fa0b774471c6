package pods

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/integration/cluster"
)

// newcomer is a service account that comes and goes.
const newcomer = "newcomer"

const caSecret = "istio-ca-secret"

func emptied(s *corev1.Secret) *corev1.Secret {
	s.Data = nil
	return s
}

// anotherRoot is a whole CA secret, of a CA that nobody has heard of.
func anotherRoot(s *corev1.Secret) *corev1.Secret {
	s.Data = otherCA
	return s
}

var otherCA map[string][]byte

// spoilCA changes the CA secret for some time; nil deletes it. That is told, and
// signing goes on with what is held: a new service account has the old root, also
// when the leader starts anew meanwhile: it makes no second root, and takes no
// other that the published one does not vouch for.
func spoilCA(spoil func(*corev1.Secret) *corev1.Secret) func(*testing.T) {
	return func(t *testing.T) {
		if otherCA == nil {
			root := catest.Root(t, time.Now(), catest.Spec{Name: "another root"})
			otherCA = map[string][]byte{"ca-cert.pem": root.PEM(), "ca-key.pem": catest.KeyPEM(t, root.Key)}
		}
		client := plane.Client.CoreV1().Secrets(cluster.StorageNamespace)
		good := must(client.Get(t.Context(), caSecret, metav1.GetOptions{}))(t)
		anyLeader(t)
		spoilt := spoil(good.DeepCopy())
		if spoilt == nil {
			if err := client.Delete(t.Context(), caSecret, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		} else {
			must(client.Update(t.Context(), spoilt, metav1.UpdateOptions{}))(t)
		}
		if spoilt == nil {
			spoilt = &corev1.Secret{}
		}
		defer restore(t, good)
		within(t, patience, func() error { return inSync(t.Context(), false) })
		signsBy(t, good.Data["ca-cert.pem"])
		newLeader(t)
		signsBy(t, good.Data["ca-cert.pem"])
		if now, err := client.Get(t.Context(), caSecret, metav1.GetOptions{}); err == nil && !reflect.DeepEqual(now.Data, spoilt.Data) {
			t.Error("a second root was stored")
		}
	}
}

// restore puts the CA secret back, and waits until all replicas hold it.
func restore(t *testing.T, good *corev1.Secret) {
	t.Helper()
	client := plane.Client.CoreV1().Secrets(cluster.StorageNamespace)
	good.ResourceVersion, good.UID = "", ""
	within(t, patience, func() error {
		err := client.Delete(t.Context(), caSecret, metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		_, err = client.Create(t.Context(), good, metav1.CreateOptions{})
		return err
	})
	within(t, patience, func() error { return available(t.Context()) })
	within(t, patience, func() error { return inSync(t.Context(), true) })
}

// inSync is nil when the leader says so of the CA secret.
func inSync(ctx context.Context, want bool) error {
	pod, err := leader(ctx)
	if err != nil {
		return err
	}
	page, err := plane.Client.CoreV1().RESTClient().Get().Namespace(cluster.StorageNamespace).Resource("pods").Name(pod + ":15014").SubResource("proxy").Suffix("metrics").DoRaw(ctx)
	if err != nil {
		return err
	}
	line := "citadel_ca_secret_in_sync 0\n"
	if want {
		line = "citadel_ca_secret_in_sync 1\n"
	}
	if !strings.Contains(string(page), line) {
		return fmt.Errorf("%s does not say %q", pod, line)
	}
	return nil
}

// signsBy makes a service account, and sees that its Secret has the root.
func signsBy(t *testing.T, root []byte) {
	t.Helper()
	const name = newcomer
	if err := makeAccount(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	secrets := plane.Client.CoreV1().Secrets(mesh)
	within(t, patience, func() error {
		s, err := secrets.Get(t.Context(), "istio."+name, metav1.GetOptions{})
		if err == nil && !bytes.Equal(s.Data["root-cert.pem"], root) {
			t.Fatalf("a second root: %s", s.Data["root-cert.pem"])
		}
		return err
	})
	if err := plane.Client.CoreV1().ServiceAccounts(mesh).Delete(t.Context(), name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		_, err := secrets.Get(t.Context(), "istio."+name, metav1.GetOptions{})
		if err == nil {
			return fmt.Errorf("Secret istio.%s outlives its service account", name)
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	})
}

// newLeader deletes the pod that leads. The one that takes over has the root; the
// one in its place has only the spoilt CA secret, and must not become ready by it.
func newLeader(t *testing.T) {
	t.Helper()
	old := anyLeader(t)
	kubectl(t, "-n", cluster.StorageNamespace, "delete", "pod", old, "--grace-period=3")
	var lead string
	within(t, patience, func() (err error) {
		if lead, err = leader(t.Context()); err == nil && lead == old {
			err = fmt.Errorf("%s leads", old)
		}
		return err
	})
	within(t, patience, func() error {
		for _, pod := range replicas(t) {
			if pod.Name == lead || len(pod.Status.ContainerStatuses) == 0 {
				continue
			}
			s := pod.Status.ContainerStatuses[0]
			if s.Ready {
				t.Fatalf("pod %s is ready with a CA secret that is spoilt", pod.Name)
			}
			if s.State.Running != nil && time.Since(s.State.Running.StartedAt.Time) > 3*time.Second || s.RestartCount > 0 {
				return nil
			}
		}
		return fmt.Errorf("no new replica has tried")
	})
}

// loseCA deletes the CA secret and every replica that holds what was in it. Those
// in their place sign nothing, and make no root, until it is back.
func loseCA(t *testing.T) time.Duration {
	secrets := plane.Client.CoreV1().Secrets(cluster.StorageNamespace)
	good := must(secrets.Get(t.Context(), caSecret, metav1.GetOptions{}))(t)
	gone := map[string]bool{}
	for _, pod := range replicas(t) {
		gone[pod.Name] = true
	}
	begin := time.Now()
	if err := secrets.Delete(t.Context(), caSecret, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	defer restore(t, good)
	kubectl(t, "-n", cluster.StorageNamespace, "delete", "pods", "-l", citadelLabel, "--grace-period=1")
	within(t, patience, func() error {
		pods := replicas(t)
		if len(pods) < len(gone) {
			return fmt.Errorf("%d replicas, want %d", len(pods), len(gone))
		}
		for _, pod := range pods {
			if gone[pod.Name] {
				return fmt.Errorf("pod %s is still there", pod.Name)
			}
			said, err := plane.Kubectl(t.Context(), "-n", cluster.StorageNamespace, "logs", pod.Name)
			if err != nil { // its container is yet to be made
				return err
			}
			if strings.Count(said, "peers would not trust one another") < 3 {
				return fmt.Errorf("pod %s says %s", pod.Name, said)
			}
			if len(pod.Status.ContainerStatuses) > 0 && pod.Status.ContainerStatuses[0].Ready {
				t.Fatalf("pod %s is ready without a root", pod.Name)
			}
		}
		return nil
	})
	if _, err := secrets.Get(t.Context(), caSecret, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a second root was stored: %v", err)
	}
	return time.Since(begin) + 15*time.Second + leaseTime // they look that often for it
}
