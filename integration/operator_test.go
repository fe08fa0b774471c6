package integration

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/catest"
	"citadel/ca/trust"
)

// plugged is an operator's own CA in Secret cacerts, in the layout of four
// names.
func plugged(t *testing.T, namespace string, ca *catest.Issuer) *corev1.Secret {
	t.Helper()
	pieces := ca.Pieces(t)
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cacerts"}, Data: map[string][]byte{
		"ca-cert.pem": pieces.Cert.PEM, "ca-key.pem": pieces.Key.PEM, "cert-chain.pem": pieces.Chain.PEM, "root-cert.pem": pieces.Roots.PEM}}
}

// pluggedTLS is the same in cert-manager's layout.
func pluggedTLS(t *testing.T, namespace string, ca *catest.Issuer) *corev1.Secret {
	t.Helper()
	pieces := ca.Pieces(t)
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "cacerts"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		"tls.crt": trust.MarshalCertificates(ca.Chain()), "tls.key": pieces.Key.PEM, "ca.crt": pieces.Roots.PEM}}
}

// files are the flags that give an operator's own CA by files.
func files(t *testing.T, ca *catest.Issuer) []string {
	t.Helper()
	pieces := ca.Pieces(t)
	flags := []string{"--signing-cert", writeFile(t, "ca-cert.pem", pieces.Cert.PEM), "--signing-key", writeFile(t, "ca-key.pem", pieces.Key.PEM),
		"--root-cert", writeFile(t, "root-cert.pem", pieces.Roots.PEM)}
	if len(pieces.Chain.PEM) > 0 {
		flags = append(flags, "--cert-chain", writeFile(t, "cert-chain.pem", pieces.Chain.PEM))
	}
	return flags
}

// operatorsRoot is an operator's root of today.
func operatorsRoot(t *testing.T) *catest.Issuer {
	t.Helper()
	return catest.Root(t, time.Now(), catest.Spec{Name: "operator's root"})
}
