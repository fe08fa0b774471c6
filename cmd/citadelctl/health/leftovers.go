package health

import (
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/cmd/citadelctl/inspect"
	"citadel/secretcontroller"
)

// Leftovers judges what an installation would find: an earlier CA and what it
// has made, or what another authority keeps.
func Leftovers(w World) []Check {
	x := &examination{World: w, report: &Report{}, section: "other authorities"}
	x.installed()
	x.oldCA()
	x.oldRoots()
	return x.report.Checks
}

func (x *examination) installed() {
	const name = "no-other-citadel"
	lease := x.Lease.Value
	held := lease != nil && lease.Spec.HolderIdentity != nil && *lease.Spec.HolderIdentity != ""
	switch {
	case x.Lease.Unknown != "":
		x.unknown(name, x.Lease.Unknown)
	case x.Deployment.Unknown != "":
		x.unknown(name, x.Deployment.Unknown)
	case x.Deployment.Value != nil && !selectsPods(x.Deployment.Value.Spec.Selector):
		x.fail(name, "delete it first, and what it made stays: kubectl -n "+x.Scope.StorageNamespace+" delete deployment "+Deployment,
			"there is a Deployment %s that selects its pods by %s: the API server refuses to change that to istio=citadel",
			x.storage(Deployment), metav1.FormatLabelSelector(x.Deployment.Value.Spec.Selector))
	case x.Deployment.Value != nil:
		x.warn(name, "look at it with: citadelctl check; kubectl apply changes it to this version", "there is a Deployment %s already", x.storage(Deployment))
	case held:
		x.warn(name, "stop what runs there, unless it is meant to take turns with what you install", "%s holds Lease %s", *lease.Spec.HolderIdentity, x.storage(kube.LeaseName))
	default:
		x.ok(name, "no citadel is in namespace %s", x.Scope.StorageNamespace)
	}
}

// selectsPods tells whether a Deployment finds its pods as that of deploy/ does:
// what it finds them by is for life. Before Istio 1.1 it was every label.
func selectsPods(s *metav1.LabelSelector) bool {
	return s != nil && len(s.MatchExpressions) == 0 && maps.Equal(s.MatchLabels, map[string]string{"istio": "citadel"})
}

// oldCA: what is there is used as it is, and one that cannot be used stops the
// start.
func (x *examination) oldCA() {
	const name = "ca-leftover"
	secret, why := x.caSecret()
	if why != "" {
		x.unknown(name, why)
		return
	}
	if secret == nil {
		x.ok(name, "there is no CA yet: citadel makes a root")
		return
	}
	source := "secret/" + secret.Namespace + "/" + secret.Name
	made, err := load(x.Now, secret)
	if err != nil {
		x.fail(name, "mend or restore it; only where no workload has a certificate of it, delete it; see all with: citadelctl cert inspect "+source,
			"citadel would not start: it cannot sign with %s: %v", source, err)
		return
	}
	x.signer = made
	if left := made.end.Sub(x.Now); left < Soon {
		x.warn(name, "put another CA in its place in good time", "the CA in %s would be used as it is, and ends in %s", source, inspect.Span(left))
		return
	}
	x.ok(name, "the CA in %s would be used as it is: %s", source, trust.Name(made.cert))
}

// oldRoots: those of another authority would be overwritten.
func (x *examination) oldRoots() {
	const name = "roots-leftover"
	if x.Roots.Unknown != "" {
		x.unknown(name, x.Roots.Unknown)
		return
	}
	spaces, known := x.rootSpaces()
	if !known {
		x.unknown(name, x.Namespaces.Unknown)
		return
	}
	found, _ := x.bundles(spaces)
	var foreign []string
	for _, b := range found {
		if x.signer.cert == nil || !trust.SameRoots(trust.MergeRoots(b.certs, x.signer.roots), b.certs) {
			foreign = append(foreign, b.in...)
		}
	}
	switch {
	case len(foreign) > 0:
		x.fail(name, "find out who keeps them: label the namespaces of another authority ca.istio.io/override=false; delete the ConfigMaps of one that is gone, or restore its CA secret",
			"ConfigMap %s has roots that are not of this CA in %s", secretcontroller.RootsConfigMap, x.some(foreign))
	case len(found) > 0:
		x.ok(name, "the roots in ConfigMap %s are of this CA", secretcontroller.RootsConfigMap)
	default:
		x.ok(name, "no namespace has roots yet")
	}
}
