package secretcontroller

import (
	"fmt"
	"slices"
)

// Scope says which namespaces are managed.
type Scope struct {
	// Listed, when not empty, are the only namespaces that are looked at, and
	// all of them are managed.
	Listed []string
	// StorageNamespace is where this Citadel keeps its own objects, and the
	// name by which EnvLabel chooses it.
	StorageNamespace string
	// EnabledByDefault counts for namespaces that no label speaks of.
	EnabledByDefault bool
}

// Manages decides for one namespace: being listed, then OverrideLabel, then
// EnvLabel, then the default. Its second result says which of them decided.
func (s Scope) Manages(namespace string, labels map[string]string) (bool, string) {
	if len(s.Listed) > 0 {
		return slices.Contains(s.Listed, namespace), "listened namespaces"
	}
	switch labels[OverrideLabel] {
	case "true":
		return true, "label " + OverrideLabel
	case "false":
		return false, "label " + OverrideLabel
	}
	if env, ok := labels[EnvLabel]; ok {
		return env == s.StorageNamespace, "label " + EnvLabel
	}
	return s.EnabledByDefault, "default"
}

// ignored says which label is there and decides nothing, in words; empty if
// none is.
func (s Scope) ignored(labels map[string]string) string {
	value, ok := labels[OverrideLabel]
	if !ok || value == "true" || value == "false" || len(s.Listed) > 0 {
		return ""
	}
	return fmt.Sprintf("label %s is %q, which is neither true nor false: it decides nothing", OverrideLabel, value)
}

// withoutRoots are the namespaces that get no RootsConfigMap: nothing that
// uses the mesh runs there.
var withoutRoots = []string{"kube-public", "kube-node-lease", "local-path-storage"}

// DistributesRoots decides whether a managed namespace gets RootsConfigMap.
func DistributesRoots(namespace string) bool { return !slices.Contains(withoutRoots, namespace) }
