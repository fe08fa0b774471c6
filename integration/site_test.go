package integration

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/trust"
	"citadel/integration/cluster"
)

// patience bounds every wait for something that takes a moment, on a machine
// that does much else.
const patience = 90 * time.Second

// site is where the Citadel of one test keeps its own. It manages the
// namespaces that are labelled with its name and no others, so that tests do
// not disturb each other.
type site struct {
	storage string // the namespace of its CA secret and its lease
	account
}

// account is one under which Citadel runs.
type account struct {
	user       string // as the audit log names it
	kubeconfig string
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{storage: makeNamespace(t, nil)}
	s.account = s.newAccount(t, "citadel")
	return s
}

// deployed is the site that deploy/ makes.
func deployed(t *testing.T) *site {
	t.Helper()
	s := &site{storage: cluster.StorageNamespace}
	s.account = s.access(t, cluster.CitadelAccount)
	return s
}

// newAccount makes a service account with the rights of deploy/.
func (s *site) newAccount(t *testing.T, name string) account {
	t.Helper()
	s.bareAccount(t, name)
	subjects := s.subjects(name)
	must(plane.Client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.storage + "-" + name}, Subjects: subjects, RoleRef: clusterRole(deployedName)}, metav1.CreateOptions{}))(t)
	s.bindLease(t, name)
	return s.access(t, name)
}

// deployedName is what deploy/ calls its roles.
const deployedName = "istio-citadel"

func clusterRole(name string) rbacv1.RoleRef {
	return rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name}
}

func (s *site) bareAccount(t *testing.T, name string) {
	t.Helper()
	makeAccount(t, s.storage, name)
}

func (s *site) subjects(name string) []rbacv1.Subject {
	return []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.storage, Name: name}}
}

// bindLease gives the rights of deploy/'s Role in the storage namespace.
func (s *site) bindLease(t *testing.T, name string) {
	t.Helper()
	role := must(plane.Client.RbacV1().Roles(cluster.StorageNamespace).Get(t.Context(), deployedName, metav1.GetOptions{}))(t)
	s.bindRules(t, s.storage, name, "lease", role.Rules)
}

// bindRules gives an account rights in one namespace.
func (s *site) bindRules(t *testing.T, namespace, name, role string, rules []rbacv1.PolicyRule) {
	t.Helper()
	meta := metav1.ObjectMeta{Name: name + "-" + role}
	must(plane.Client.RbacV1().Roles(namespace).Create(t.Context(), &rbacv1.Role{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{}))(t)
	must(plane.Client.RbacV1().RoleBindings(namespace).Create(t.Context(), &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: s.subjects(name),
		RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}}, metav1.CreateOptions{}))(t)
}

// access returns a kubeconfig of the account, once the API server knows of the
// rights to the lease.
func (s *site) access(t *testing.T, name string) account {
	t.Helper()
	a := account{user: "system:serviceaccount:" + s.storage + ":" + name, kubeconfig: filepath.Join(t.TempDir(), name+".kubeconfig")}
	if err := plane.ServiceAccount(t.Context(), s.storage, name, a.kubeconfig); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error { return a.may("create", "coordination.k8s.io", "leases", s.storage) })
	return a
}

// may is nil when the API server allows the account to do it.
func (a account) may(verb, group, resource, namespace string) error {
	review, err := plane.Client.AuthorizationV1().SubjectAccessReviews().Create(context.Background(), &authorizationv1.SubjectAccessReview{
		Spec: authorizationv1.SubjectAccessReviewSpec{User: a.user, ResourceAttributes: &authorizationv1.ResourceAttributes{
			Verb: verb, Group: group, Resource: resource, Namespace: namespace}}}, metav1.CreateOptions{})
	if err == nil && !review.Status.Allowed {
		err = fmt.Errorf("%s may not %s %s in %s", a.user, verb, resource, namespace)
	}
	return err
}

// namespace makes one that this site's Citadel manages.
func (s *site) namespace(t *testing.T) string {
	t.Helper()
	return makeNamespace(t, s.label())
}

// label is what makes a namespace this site's.
func (s *site) label() map[string]string { return map[string]string{"ca.istio.io/env": s.storage} }

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// makeNamespace makes one with a name that tells the test.
func makeNamespace(t *testing.T, labels map[string]string) string {
	t.Helper()
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(strings.TrimPrefix(t.Name(), "Test")), "-"), "-")
	if len(name) > 40 {
		name = strings.Trim(name[:40], "-")
	}
	ns := must(plane.Client.CoreV1().Namespaces().Create(t.Context(), &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: name + "-", Labels: labels}}, metav1.CreateOptions{}))(t)
	return ns.Name
}

// setLabels replaces the labels of Citadel on a namespace; an empty value
// removes one.
func setLabels(t *testing.T, namespace string, labels map[string]string) {
	t.Helper()
	within(t, patience, func() error {
		ns, err := plane.Client.CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for k, v := range labels {
			if ns.Labels[k] = v; v == "" {
				delete(ns.Labels, k)
			}
		}
		_, err = plane.Client.CoreV1().Namespaces().Update(t.Context(), ns, metav1.UpdateOptions{})
		return err
	})
}

func makeAccount(t *testing.T, namespace, name string) *corev1.ServiceAccount {
	t.Helper()
	return must(plane.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}))(t)
}

// makeAccounts makes many with names made of prefix and a number.
func makeAccounts(t *testing.T, namespace, prefix string, count int) []*corev1.ServiceAccount {
	t.Helper()
	made := make([]*corev1.ServiceAccount, count)
	inParallel(t, count, func(i int) (err error) {
		made[i], err = plane.Client.CoreV1().ServiceAccounts(namespace).Create(t.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%04d", prefix, i)}}, metav1.CreateOptions{})
		return err
	})
	return made
}

// roots are those of the site's self-signed CA.
func (s *site) roots(t *testing.T) []*x509.Certificate {
	t.Helper()
	var roots []*x509.Certificate
	within(t, patience, func() error {
		secret, err := plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{})
		if err != nil {
			return err
		}
		roots, err = trust.ParseCertificates(secret.Data["ca-cert.pem"])
		return err
	})
	return roots
}

// writeFile puts a file into a folder of the test's.
func writeFile(t *testing.T, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
