package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// TestHolds: a Secret that is gone, emptied or another's is told; an API server
// that does not answer is not taken for any of these.
func TestHolds(t *testing.T) {
	_, _, held := layouts(t, time.Now())
	other := catest.Root(t, time.Now(), catest.Spec{Name: "other"})
	key, otherKey := catest.KeyPEM(t, held.Key), catest.KeyPEM(t, other.Key)
	for name, c := range map[string]struct {
		data  map[string][]byte
		fault error
		wrong string
	}{
		"held":           {map[string][]byte{CACertKey: held.PEM(), CAKeyKey: key}, nil, ""},
		"cert-manager's": {map[string][]byte{"tls.crt": trust.MarshalCertificates(held.Chain()), "tls.key": key}, nil, ""},
		"another":        {map[string][]byte{CACertKey: other.PEM(), CAKeyKey: otherKey}, nil, "key ca-cert.pem is another certificate: "},
		"another's key":  {map[string][]byte{CACertKey: held.PEM(), CAKeyKey: otherKey}, nil, "key ca-key.pem is not the key of that certificate"},
		"no key":         {map[string][]byte{CACertKey: held.PEM()}, nil, "key ca-key.pem is not the key of that certificate"},
		"emptied":        {map[string][]byte{}, nil, "holds no PEM certificate"},
		"gone":           {nil, nil, "is gone"},
		"nobody answers": {nil, errBroken, ErrNotKnown.Error()},
	} {
		for _, secret := range []string{CASecret, PluggedSecret} {
			client := fake.NewSimpleClientset()
			if c.data != nil {
				client = fake.NewSimpleClientset(caSecret(secret, c.data))
			}
			if c.fault != nil {
				client.PrependReactor("get", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, c.fault })
			}
			err := Holds(t.Context(), client, storage, Found{Signer: held.Signer(t, time.Now()), Secret: secret})
			if (err == nil) != (c.wrong == "") || err != nil && (!strings.Contains(err.Error(), c.wrong) || !strings.Contains(err.Error(), "istio-system/"+secret)) ||
				errors.Is(err, ErrNotKnown) != (c.fault != nil) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}
