package kube

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"citadel/ca/trust"
)

// ErrBothLayouts is told of a PluggedSecret that holds an authority twice.
var ErrBothLayouts = errors.New("holds both layouts")

// The two layouts of PluggedSecret: Istio's, and cert-manager's, whose chain is
// in tls.crt.
var (
	pluggedKeys    = []string{CACertKey, CAKeyKey, PluggedChainKey, PluggedRootKey}
	pluggedTLSKeys = []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey, "ca.crt"}
)

func holds(secret *corev1.Secret, keys ...string) bool {
	return slices.ContainsFunc(keys, func(key string) bool { _, ok := secret.Data[key]; return ok })
}

// pluggedPieces prefers the four .pem names. Without any known key all of them
// are named: the operator may have chosen others.
func pluggedPieces(secret *corev1.Secret) trust.Pieces {
	if holds(secret, corev1.TLSCertKey) && !holds(secret, CACertKey) {
		return trust.Pieces{
			Cert:  piece(secret, corev1.TLSCertKey),
			Key:   piece(secret, corev1.TLSPrivateKeyKey),
			Roots: piece(secret, "ca.crt"),
		}
	}
	pieces := trust.Pieces{
		Cert:  piece(secret, CACertKey),
		Key:   piece(secret, CAKeyKey),
		Chain: piece(secret, PluggedChainKey),
		Roots: piece(secret, PluggedRootKey),
	}
	if !holds(secret, slices.Concat(pluggedKeys, pluggedTLSKeys)...) {
		pieces.Cert.Name += fmt.Sprintf(" (there is none of %v, nor of %v)", pluggedKeys, pluggedTLSKeys)
	}
	return pieces
}

func piece(secret *corev1.Secret, key string) trust.Piece {
	return trust.Piece{Name: fmt.Sprintf("Secret %s/%s key %s", secret.Namespace, secret.Name, key), PEM: secret.Data[key]}
}
