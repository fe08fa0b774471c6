package secretcontroller

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The names that workloads, agents and people's manifests rely on.
const (
	// SecretPrefix comes before the service account's name in its Secret's name.
	SecretPrefix = "istio."
	// SecretType is the type of every workload Secret.
	SecretType corev1.SecretType = "istio.io/key-and-cert"
	// ChainKey holds the leaf and its issuers, KeyKey the private key, RootsKey
	// the roots that peers are verified by; all PEM.
	ChainKey = "cert-chain.pem"
	KeyKey   = "key.pem"
	RootsKey = "root-cert.pem"
	// AccountAnnotation names the service account on its Secret.
	AccountAnnotation = "istio.io/service-account.name"

	// ManagedByLabel with value ManagedBy selects the Secrets of our making.
	ManagedByLabel = "app.kubernetes.io/managed-by"
	ManagedBy      = "istio-citadel"

	// OverrideLabel on a namespace, "true" or "false", decides whether it is
	// managed; EnvLabel names the storage namespace of the Citadel that manages
	// it.
	OverrideLabel = "ca.istio.io/override"
	EnvLabel      = "ca.istio.io/env"

	// RootsConfigMap is in every managed namespace, its key RootsKey.
	RootsConfigMap = "istio-ca-root-cert"
	// RootsConfigMapLabel, "true", marks it as Istio's.
	RootsConfigMapLabel = "istio.io/config"
	// LegacyConfigMap is in the storage namespace, for agents of Istio 1.1 to
	// 1.4, its key LegacyRootsKey base64 of PEM.
	LegacyConfigMap = "istio-security"
	LegacyRootsKey  = "caTLSRootCert"
)

// SecretName is the name of a service account's Secret.
func SecretName(account string) string { return SecretPrefix + account }

// AccountOf returns the service account that a Secret of this name belongs to.
func AccountOf(secretName string) (string, bool) {
	account, ok := strings.CutPrefix(secretName, SecretPrefix)
	return account, ok && account != ""
}

// Account is a living service account.
type Account struct {
	Namespace, Name string
	UID             types.UID
}
