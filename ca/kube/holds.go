package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"citadel/ca/trust"
)

// ErrNotKnown says that the API server could not say.
var ErrNotKnown = errors.New("the API server does not say")

// Holds tells whether a Secret still holds the signing certificate in use and
// its key: nil if it does, ErrNotKnown if the API server could not say.
func Holds(ctx context.Context, client kubernetes.Interface, namespace string, found Found) error {
	secret, err := client.CoreV1().Secrets(namespace).Get(ctx, found.Secret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return fmt.Errorf("%s/%s is gone", namespace, found.Secret)
	}
	if err != nil {
		return fmt.Errorf("read Secret %s/%s: %w: %w", namespace, found.Secret, ErrNotKnown, err)
	}
	pieces := pluggedPieces(secret) // the CA secret has two of the four
	certs, err := trust.ParseCertificates(pieces.Cert.PEM)
	if err != nil {
		return fmt.Errorf("%s %w", pieces.Cert.Name, err)
	}
	if !certs[0].Equal(found.Cert()) {
		return fmt.Errorf("%s is another certificate: %s", pieces.Cert.Name, trust.Name(certs[0]))
	}
	if key, err := trust.ParseKey(pieces.Key.PEM); err != nil || !trust.SamePublicKey(found.Cert().PublicKey, key.Public()) {
		return fmt.Errorf("%s is not the key of that certificate", pieces.Key.Name)
	}
	return nil
}
