package secretcontroller

import "testing"

// TestFixedNames: workloads, agents and manifests spell these out
// (compatibility 2.1, 2.3, 3.7).
func TestFixedNames(t *testing.T) {
	for got, want := range map[string]string{
		SecretPrefix:        "istio.",
		string(SecretType):  "istio.io/key-and-cert",
		ChainKey:            "cert-chain.pem",
		KeyKey:              "key.pem",
		RootsKey:            "root-cert.pem",
		AccountAnnotation:   "istio.io/service-account.name",
		ManagedByLabel:      "app.kubernetes.io/managed-by",
		ManagedBy:           "istio-citadel",
		OverrideLabel:       "ca.istio.io/override",
		EnvLabel:            "ca.istio.io/env",
		RootsConfigMap:      "istio-ca-root-cert",
		RootsConfigMapLabel: "istio.io/config",
		LegacyConfigMap:     "istio-security",
		LegacyRootsKey:      "caTLSRootCert",
	} {
		if got != want {
			t.Errorf("a fixed name is %q, must be %q", got, want)
		}
	}
}

// TestReasons: dashboards and alerts select by them.
func TestReasons(t *testing.T) {
	for got, want := range map[Reason]string{
		Right: "", Missing: "missing", Vanished: "deleted", WrongType: "type", WrongAccount: "annotation", WrongOwner: "owner",
		BadKey: "key", BadChain: "chain", WrongName: "identity", BadRoots: "roots", OldRoots: "root changed", TurnedBack: "turned back", Held: "held",
		Expired: "expired", NotYetValid: "not yet valid", Due: "rotation",
	} {
		if string(got) != want {
			t.Errorf("a reason is %q, must be %q", got, want)
		}
	}
	for got, want := range map[Action]string{
		Created: "created", Replaced: "replaced", Deleted: "deleted", Refused: "refused", Failed: "failed",
	} {
		if string(got) != want {
			t.Errorf("an action is %q, must be %q", got, want)
		}
	}
}

func TestSecretNames(t *testing.T) {
	for _, account := range []string{"default", "istio.default", "a.b-c", "istio"} {
		if back, ok := AccountOf(SecretName(account)); !ok || back != account {
			t.Errorf("Secret %s is %q's, not %q's", SecretName(account), back, account)
		}
	}
	for _, name := range []string{"", "istio.", "istio", "default", "xistio.default", "Istio.default"} {
		if account, ok := AccountOf(name); ok {
			t.Errorf("Secret %q is taken for that of %q", name, account)
		}
	}
}
