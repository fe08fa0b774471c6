package health

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"citadel/ca/trust"
	"citadel/cmd/citadelctl/inspect"
	"citadel/secretcontroller"
)

// Roots are what workloads are told to trust.
type Roots struct {
	Unknown string `json:"unknown,omitempty"`
	// From says what they were read of.
	From         string `json:"from,omitempty"`
	Certificates []Root `json:"certificates,omitempty"`
	// Namespaces counts those that must have the ConfigMap, Published those of
	// them that have it with these roots.
	Namespaces int `json:"namespaces"`
	Published  int `json:"published"`
	// Missing and Different are the first of the others.
	Missing   []string `json:"missing,omitempty"`
	Different []string `json:"different,omitempty"`
}

// Root is one of them.
type Root struct {
	Subject  string    `json:"subject"`
	KeyType  string    `json:"keyType"`
	SHA256   string    `json:"sha256"`
	NotAfter time.Time `json:"notAfter"`
	DaysLeft int       `json:"daysLeft"`
}

// bundle is a set of roots, and the namespaces whose ConfigMap holds it.
type bundle struct {
	from  string
	certs []*x509.Certificate
	in    []string
}

func (x *examination) roots() {
	x.section = "roots"
	r := &x.report.Roots
	spaces, known := x.rootSpaces()
	bundles, bad := x.bundles(spaces)
	x.inForce = x.choose(bundles)
	r.From = x.inForce.from
	for _, root := range byEnd(x.inForce.certs) {
		sum := sha256.Sum256(root.Raw)
		r.Certificates = append(r.Certificates, Root{Subject: trust.Name(root), KeyType: inspect.KeyType(root.PublicKey),
			SHA256: hex.EncodeToString(sum[:]), NotAfter: root.NotAfter.UTC(), DaysLeft: days(x.Now, root.NotAfter)})
	}
	switch {
	case x.Roots.Unknown != "":
		r.Unknown = x.Roots.Unknown
	case !known:
		r.Unknown = x.Namespaces.Unknown
	}
	if r.Unknown != "" {
		x.unknown("roots-published", r.Unknown)
	} else {
		x.published(spaces, bad)
	}
	x.rootLife()
	x.rootsOfCA()
	x.legacy()
}

// rootSpaces are the namespaces that must have the ConfigMap.
func (x *examination) rootSpaces() ([]string, bool) {
	managed, known := x.managed()
	return slices.DeleteFunc(managed, func(ns string) bool { return !secretcontroller.DistributesRoots(ns) }), known
}

// bundles sorts the namespaces by what they hold; bad are those whose roots
// cannot be read.
func (x *examination) bundles(spaces []string) (found []bundle, bad []string) {
	maps := slices.SortedFunc(slices.Values(x.Roots.Value), func(a, b corev1.ConfigMap) int { return bytes.Compare([]byte(a.Namespace), []byte(b.Namespace)) })
	for _, cm := range maps {
		if !slices.Contains(spaces, cm.Namespace) {
			continue
		}
		certs, err := trust.ParseCertificates([]byte(cm.Data[secretcontroller.RootsKey]))
		if err != nil {
			bad = append(bad, cm.Namespace)
			continue
		}
		n := slices.IndexFunc(found, func(b bundle) bool { return trust.SameRoots(b.certs, certs) })
		if n < 0 {
			n, found = len(found), append(found, bundle{certs: certs, from: "ConfigMap " + secretcontroller.RootsConfigMap})
		}
		found[n].in = append(found[n].in, cm.Namespace)
	}
	return found, bad
}

// choose takes the roots that most namespaces have; where none has any, the
// CA's.
func (x *examination) choose(found []bundle) bundle {
	best := bundle{}
	for _, b := range found {
		if len(b.in) > len(best.in) {
			best = b
		}
	}
	if len(best.certs) == 0 && x.signer.cert != nil {
		best = bundle{from: x.report.Authority.Source, certs: x.signer.roots}
	}
	return best
}

func (x *examination) published(spaces, bad []string) {
	const name = "roots-published"
	r := &x.report.Roots
	r.Namespaces, r.Published = len(spaces), len(x.inForce.in)
	var missing, different []string
	for _, ns := range spaces {
		has := slices.ContainsFunc(x.Roots.Value, func(cm corev1.ConfigMap) bool { return cm.Namespace == ns })
		switch {
		case !has:
			missing = append(missing, ns)
		case !slices.Contains(x.inForce.in, ns):
			different = append(different, ns)
		}
	}
	r.Missing, r.Different = first(missing, x.Examples), first(different, x.Examples)
	const remedy = "see that citadel runs, leads and may write ConfigMaps; where another authority (istiod) writes them too, take the namespace from one of the two"
	switch {
	case len(missing) > 0:
		x.fail(name, remedy, "ConfigMap %s is missing in %s", secretcontroller.RootsConfigMap, x.some(missing))
	case len(bad) > 0:
		x.fail(name, remedy, "ConfigMap %s is damaged in %s", secretcontroller.RootsConfigMap, x.some(bad))
	case len(different) > 0:
		x.fail(name, remedy, "ConfigMap %s has other roots in %s than elsewhere", secretcontroller.RootsConfigMap, x.some(different))
	default:
		x.ok(name, "%s the roots in force in ConfigMap %s", numbered(len(spaces), "namespace has", "namespaces have"), secretcontroller.RootsConfigMap)
	}
}

func first(names []string, n int) []string { return names[:min(n, len(names))] }

// rootLife: the end of the root that the CA is below is ca-life's; another
// root near its end is told where the CA is known, and counts where it is not.
func (x *examination) rootLife() {
	const name = "roots-life"
	roots := byEnd(x.inForce.certs)
	if len(roots) == 0 {
		return
	}
	left := roots[0].NotAfter.Sub(x.Now)
	const remedy = "replace it in good time: add its successor to the roots before it signs, and take the old one out when nothing below it is in use"
	switch {
	case left >= Soon:
		x.ok(name, "the roots in force are good for %s", inspect.Span(left))
	case x.signer.cert != nil && x.signer.end.Sub(x.Now) >= Soon:
		x.warn(name, remedy, "a root that the CA is not below, %s, ends at %s", trust.Name(roots[0]), stamp(roots[0].NotAfter))
	default:
		x.fail(name, remedy, "root %s ends at %s", trust.Name(roots[0]), stamp(roots[0].NotAfter))
	}
}

// rootsOfCA: what a restart would sign with must lead to what is believed now.
func (x *examination) rootsOfCA() {
	const name = "roots-of-ca"
	if x.signer.cert == nil || len(x.inForce.in) == 0 {
		return
	}
	for _, root := range x.signer.roots {
		if !slices.ContainsFunc(x.inForce.certs, root.Equal) {
			x.fail(name, "if the CA was changed on purpose, its root-cert.pem (or --root-cert) must also hold the roots in force, until all Secrets are renewed and programs have reloaded them, "+
				"or peers will not trust each other meanwhile; then restart citadel: kubectl -n "+x.Scope.StorageNamespace+" rollout restart deployment/"+Deployment+
				"; otherwise restore the Secret from a backup before anything restarts", "the CA in %s is below a root, %s, that the roots in force lack", x.report.Authority.Source, trust.Name(root))
			return
		}
	}
	x.ok(name, "the CA is below the roots in force")
}

// legacy is of agents of Istio 1.1 to 1.4.
func (x *examination) legacy() {
	const name = "roots-for-old-agents"
	cm := x.Legacy.Value
	switch {
	case x.Legacy.Unknown != "":
		x.unknown(name, x.Legacy.Unknown)
		return
	case len(x.inForce.certs) == 0:
		return
	case cm == nil:
		x.fail(name, "see that citadel runs, leads and may write ConfigMaps", "there is no ConfigMap %s", x.storage(secretcontroller.LegacyConfigMap))
		return
	}
	text, err := base64.StdEncoding.DecodeString(cm.Data[secretcontroller.LegacyRootsKey])
	held, parseErr := trust.ParseCertificates(text)
	lacking := slices.ContainsFunc(x.inForce.certs, func(root *x509.Certificate) bool { return !slices.ContainsFunc(held, root.Equal) })
	if err != nil || parseErr != nil || lacking {
		x.fail(name, "see that citadel runs, leads and may write ConfigMaps", "ConfigMap %s does not hold the roots in force", x.storage(secretcontroller.LegacyConfigMap))
		return
	}
	x.ok(name, "ConfigMap %s holds them too", x.storage(secretcontroller.LegacyConfigMap))
}
