package integration

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/cluster"
)

// choice is a combination of labels and whether it makes a namespace managed.
type choice struct {
	override, env string
	byDefault     map[bool]bool // of --enable-namespaces-by-default
}

var always, never, asDefault = map[bool]bool{true: true, false: true}, map[bool]bool{}, map[bool]bool{true: true}

// Not parallel: an override of "true" is meant for every Citadel that watches
// the whole cluster.
func TestLabelsChooseNamespaces(t *testing.T) {
	const own, other = "own", "somebody-elses"
	choices := []choice{
		{"true", "", always}, {"true", own, always}, {"true", other, always},
		{"false", "", never}, {"false", own, never}, {"false", other, never},
		{"", own, always},
		{"", other, never},
		{"", "", asDefault},
		{"maybe", "", asDefault}, {"maybe", own, always}, {"maybe", other, never},
	}
	for _, byDefault := range []bool{false, true} {
		t.Run(fmt.Sprintf("default %v", byDefault), func(t *testing.T) {
			s := newSite(t)
			spaces := map[string]choice{}
			for _, c := range choices {
				ns := makeNamespace(t, c.labels(s.storage))
				spaces[ns] = c
				defer setLabels(t, ns, map[string]string{"ca.istio.io/override": "false"}) // nobody's from here on
				makeAccount(t, ns, "sleep")
			}
			p := s.start(t, fmt.Sprintf("--enable-namespaces-by-default=%v", byDefault))
			for ns, c := range spaces {
				if c.byDefault[byDefault] {
					within(t, patience, func() error { _, err := getSecret(t.Context(), ns, "sleep"); return err })
				}
			}
			right(t, makeAccount(t, makeNamespace(t, s.label()), "last"), s.roots(t))
			for ns, c := range spaces {
				if got := len(writes(t, p.since, p.user, "", ns, "")) > 0; got != c.byDefault[byDefault] {
					t.Errorf("override %q env %q: managed %v, want %v", c.override, c.env, got, !got)
				}
			}
		})
	}
}

func (c choice) labels(storage string) map[string]string {
	labels := map[string]string{}
	if c.override != "" {
		labels["ca.istio.io/override"] = c.override
	}
	switch c.env {
	case "":
	case "own":
		labels["ca.istio.io/env"] = storage
	default:
		labels["ca.istio.io/env"] = c.env
	}
	return labels
}

// Listed namespaces are managed whatever their labels and the default say, and
// renewed too (the ancestor forgot); nothing else is looked at, for which no
// rights in the whole cluster are needed.
func TestListedNamespacesAreManagedAndNoOthers(t *testing.T) {
	t.Parallel()
	s := &site{storage: makeNamespace(t, nil)}
	plainSpace, refused, unlisted := makeNamespace(t, nil), makeNamespace(t, map[string]string{"ca.istio.io/override": "false"}), s.namespace(t)
	s.bareAccount(t, "citadel")
	rules := must(plane.Client.RbacV1().ClusterRoles().Get(t.Context(), deployedName, metav1.GetOptions{}))(t).Rules
	for _, ns := range []string{s.storage, plainSpace, refused} {
		s.bindRules(t, ns, "citadel", "work", rules)
	}
	s.bindLease(t, "citadel")
	s.account = s.access(t, "citadel")
	makeAccount(t, unlisted, "sleep")
	p := s.start(t, "--listened-namespaces", plainSpace+","+refused, "--workload-cert-ttl", "12s")
	for _, ns := range []string{plainSpace, refused} {
		sa := makeAccount(t, ns, "sleep")
		before := right(t, sa, s.roots(t))
		within(t, patience, func() error { return rootsIn(t, ns, s.roots(t)) })
		within(t, patience, func() error { return renewedSince(t, sa, before) })
	}
	if got := writes(t, p.since, p.user, "", unlisted, ""); len(got) > 0 {
		t.Errorf("citadel wrote in a namespace that is not listed: %v", got)
	}
}

// renewedSince is nil when a Secret was made anew.
func renewedSince(t *testing.T, sa *corev1.ServiceAccount, before *corev1.Secret) error {
	t.Helper()
	after, err := getSecret(t.Context(), sa.Namespace, sa.Name)
	if err != nil {
		return err
	}
	return different(before, after)
}

func TestChangedLabelsCountAtOnceAndDeleteNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := makeNamespace(t, map[string]string{"ca.istio.io/env": "nobody"})
	sa, spare := makeAccount(t, ns, "sleep"), makeAccount(t, ns, "spare")
	p := s.start(t, "--workload-cert-ttl", "12s")
	roots := s.roots(t)
	if err := noSecret(t, sa); err != nil {
		t.Fatal(err)
	}
	setLabels(t, ns, s.label())
	right(t, sa, roots)
	spareSecret := right(t, spare, roots)

	setLabels(t, ns, map[string]string{"ca.istio.io/override": "false"})
	within(t, patience, func() error { // a last renewal may be under way
		if got := p.metric(t, "citadel_secret_controller_secrets"); got > 0 {
			return fmt.Errorf("%v Secrets are under management", got)
		}
		return nil
	})
	since := now(t)
	kept := must(getSecret(t.Context(), ns, "sleep"))(t)
	deleteSecret(t, spareSecret)
	ghost := createSecret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "istio.ghost", Annotations: map[string]string{annotation: "ghost"}}, Type: secretType})
	expired := leafOf(t, kept).NotAfter.Add(time.Second)
	within(t, patience, func() error { // it expires and is neither deleted nor renewed
		if time.Now().Before(expired) {
			return fmt.Errorf("it does not end before %s", expired)
		}
		return nil
	})
	if got := writes(t, since, p.user, "", ns, ""); len(got) > 0 {
		t.Errorf("citadel wrote in a namespace that is managed no more: %v", got)
	}
	if left := must(getSecret(t.Context(), ns, "ghost"))(t); left.UID != ghost.UID {
		t.Error("a leftover of an unmanaged namespace was replaced")
	}

	setLabels(t, ns, map[string]string{"ca.istio.io/override": ""})
	right(t, sa, roots)
	right(t, spare, roots)
}

func TestDNSNamesAreOfWebhooksAndOfThePolicy(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	setLabels(t, s.storage, s.label())
	ns := s.namespace(t)
	injector, galley := makeAccount(t, s.storage, "istio-sidecar-injector-service-account"), makeAccount(t, s.storage, "istio-galley-service-account")
	elsewhere, sleep := makeAccount(t, ns, "istio-galley-service-account"), makeAccount(t, ns, "sleep")
	first := fmt.Sprintf("sleep.%s:sleep.example.org,sleep.%s:*.sleep.example.org", ns, ns)
	p := s.start(t, "--custom-dns-names", first)
	roots := s.roots(t)
	right(t, injector, roots, "istio-sidecar-injector."+s.storage+".svc", "istio-sidecar-injector."+s.storage)
	right(t, galley, roots, "istio-galley."+s.storage+".svc", "istio-galley."+s.storage)
	right(t, elsewhere, roots)
	right(t, sleep, roots, "sleep.example.org", "*.sleep.example.org")
	p.stop(t)

	// Another policy makes the Secrets that it concerns anew, and no others.
	p = s.start(t, "--custom-dns-names", "sleep."+ns+":other.example.org", "--append-dns-names=false")
	right(t, injector, roots)
	right(t, galley, roots)
	right(t, sleep, roots, "other.example.org")
	var names []string
	for _, r := range writes(t, p.since, p.user, "secrets", "", "") {
		names = append(names, r.ObjectRef.Name)
	}
	if slices.Sort(names); fmt.Sprint(names) != "[istio.istio-galley-service-account istio.istio-sidecar-injector-service-account istio.sleep]" {
		t.Errorf("citadel wrote %v", names)
	}
}

// The default of deploy/ is to manage what no label speaks of. Not parallel:
// that is much of the cluster.
func TestDeployedCitadelManagesUnlabelledNamespaces(t *testing.T) {
	s := deployed(t)
	p := s.start(t, "--enable-namespaces-by-default=true")
	ns := makeNamespace(t, nil)
	for _, sa := range []*corev1.ServiceAccount{makeAccount(t, ns, "sleep"), makeAccount(t, "default", "sleep")} {
		right(t, sa, s.roots(t))
	}
	within(t, patience, func() error { return rootsIn(t, "default", s.roots(t)) })
	touched := map[string]bool{}
	for _, r := range writes(t, p.since, p.user, "configmaps", "", "istio-ca-root-cert") {
		touched[r.ObjectRef.Namespace] = true
	}
	for _, none := range []string{"kube-public", "kube-node-lease"} {
		if touched[none] {
			t.Errorf("%s got the roots: %v", none, slices.Sorted(maps.Keys(touched)))
		}
	}
	if !touched[cluster.StorageNamespace] {
		t.Error("the storage namespace did not get the roots")
	}
}
