package health

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"citadel/secretcontroller"
)

// Citadel is another one of the cluster.
type Citadel struct {
	// Name is its Deployment's, or who holds its lease, in words.
	Name string
	// Scope is what it manages; nil where that cannot be known.
	Scope *secretcontroller.Scope
}

// Others judges whether another citadel of the cluster manages namespaces that
// this one does: the two would write over each other's Secrets.
func Others(w World, namespaces []corev1.Namespace, others []Citadel) Check {
	check := Check{Section: "other authorities", Name: "namespaces-are-ours", Outcome: Passed, Message: "no other citadel of the cluster manages the same namespaces"}
	var unknown []string
	x := examination{World: w}
	for _, other := range others {
		if other.Scope == nil {
			unknown = append(unknown, other.Name)
			continue
		}
		if both := shared(namespaces, w.Scope, *other.Scope); len(both) > 0 {
			check.Outcome = Failed
			check.Message = fmt.Sprintf("%s manages namespaces that are this citadel's too: %s: the two write over each other's Secrets", other.Name, x.some(both))
			check.Remedy = "give each namespace to one of them: by label ca.istio.io/env with the storage namespace of its citadel, with --enable-namespaces-by-default=false, or by --listened-namespaces"
			return check
		}
	}
	if len(unknown) > 0 {
		check.Outcome = Warned
		check.Message = "another citadel is in this cluster, and which namespaces it manages is not known: " + x.some(unknown)
		check.Remedy = "see that no namespace is managed by both"
	}
	return check
}

// shared are the namespaces that both manage.
func shared(namespaces []corev1.Namespace, a, b secretcontroller.Scope) []string {
	var both []string
	seen := map[string]bool{}
	consider := func(name string, labels map[string]string) {
		ours, _ := a.Manages(name, labels)
		theirs, _ := b.Manages(name, labels)
		if ours && theirs && !seen[name] {
			both = append(both, name)
		}
		seen[name] = true
	}
	for _, ns := range namespaces {
		consider(ns.Name, ns.Labels)
	}
	for _, name := range a.Listed { // one may yet be made
		if slices.Contains(b.Listed, name) {
			consider(name, nil)
		}
	}
	slices.Sort(both)
	return both
}
