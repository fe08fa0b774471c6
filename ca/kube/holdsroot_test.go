package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"citadel/ca/catest"
)

// TestHoldsRoot: a CA secret that is gone, emptied or another's is told; an API
// server that does not answer is not taken for any of these.
func TestHoldsRoot(t *testing.T) {
	held := catest.Root(t, time.Now(), catest.Spec{Name: "held"})
	other := catest.Root(t, time.Now(), catest.Spec{Name: "other"})
	for name, c := range map[string]struct {
		data  map[string][]byte
		fault error
		wrong string
	}{
		"held":           {map[string][]byte{CACertKey: held.PEM(), CAKeyKey: catest.KeyPEM(t, held.Key)}, nil, ""},
		"another":        {map[string][]byte{CACertKey: other.PEM(), CAKeyKey: catest.KeyPEM(t, other.Key)}, nil, "is another certificate"},
		"another's key":  {map[string][]byte{CACertKey: held.PEM(), CAKeyKey: catest.KeyPEM(t, other.Key)}, nil, "is not the key of ca-cert.pem"},
		"no key":         {map[string][]byte{CACertKey: held.PEM()}, nil, "is not the key of ca-cert.pem"},
		"emptied":        {map[string][]byte{}, nil, "holds no PEM certificate"},
		"gone":           {nil, nil, "is gone"},
		"nobody answers": {nil, errBroken, ErrNotKnown.Error()},
	} {
		client := fake.NewSimpleClientset()
		if c.data != nil {
			client = fake.NewSimpleClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: storage, Name: CASecret}, Data: c.data})
		}
		if c.fault != nil {
			client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, c.fault })
		}
		err := HoldsRoot(t.Context(), client, storage, held.Cert)
		if (err == nil) != (c.wrong == "") || err != nil && !strings.Contains(err.Error(), c.wrong) || errors.Is(err, ErrNotKnown) != (c.fault != nil) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
