package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"citadel/cmd/citadelctl/inspect"
	"citadel/cmd/citadelctl/survey"
	"citadel/secretcontroller"
)

// Secrets are the workloads', in managed namespaces.
type Secrets struct {
	Unknown    string `json:"unknown,omitempty"`
	Namespaces int    `json:"namespaces"`
	// Accounts counts the managed service accounts. Each is in one of the
	// counts that follow.
	Accounts int `json:"accounts"`
	Right    int `json:"right"`
	// Pending counts those made so lately that their Secret need not be there.
	Pending int `json:"pending"`
	Missing int `json:"missing"`
	Wrong   int `json:"wrong"`
	// PastGrace counts those of Wrong whose certificate should have been
	// renewed, and was not.
	PastGrace int `json:"pastGrace"`
	// Orphans are Secrets of service accounts that do not exist.
	Orphans        int       `json:"orphans"`
	SoonestExpiry  time.Time `json:"soonestExpiry,omitzero"`
	SoonestRenewal time.Time `json:"soonestRenewal,omitzero"`
	// Reasons are why Secrets are wrong or missing, the most frequent first.
	Reasons []Reason `json:"reasons,omitempty"`
}

// Reason is a way of being wrong, as the controller's metrics name it.
type Reason struct {
	Reason   string    `json:"reason"`
	Count    int       `json:"count"`
	Examples []Example `json:"examples"`
}

// Example is one Secret.
type Example struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Message   string `json:"message"`
}

const (
	// youth is how long a service account may be without its Secret.
	youth = 30 * time.Second
	// lateness is how long after it is due a certificate may still be there.
	lateness = 2 * time.Minute
)

func (x *examination) secrets() {
	x.section = "secrets"
	s := &x.report.Secrets
	if s.Unknown = cmp.Or(x.Secrets.Unknown, x.Accounts.Unknown); s.Unknown != "" {
		x.unknown("secrets-right", s.Unknown)
		return
	}
	managed, known := x.managed()
	if !known {
		s.Unknown = x.Namespaces.Unknown
		x.unknown("secrets-right", s.Unknown)
		return
	}
	s.Namespaces = len(managed)
	accounts := x.living(managed)
	s.Accounts = len(accounts)
	for _, account := range x.without(accounts) {
		x.lacks(account)
	}
	if len(x.inForce.certs) > 0 {
		x.judgeSecrets(managed)
	} else if len(x.Secrets.Value) > 0 {
		x.unknown("secrets-right", "there are no roots to judge Secrets by")
		return
	}
	x.tellSecrets()
}

// living are the service accounts that must have a Secret.
func (w World) living(managed []string) []corev1.ServiceAccount {
	return slices.DeleteFunc(slices.Clone(w.Accounts.Value), func(a corev1.ServiceAccount) bool {
		return a.DeletionTimestamp != nil || !slices.Contains(managed, a.Namespace)
	})
}

// without keeps those that have no Secret.
func (w World) without(accounts []corev1.ServiceAccount) []corev1.ServiceAccount {
	there := map[types.NamespacedName]bool{}
	for _, s := range w.Secrets.Value {
		there[types.NamespacedName{Namespace: s.Namespace, Name: s.Name}] = true
	}
	return slices.DeleteFunc(slices.Clone(accounts), func(a corev1.ServiceAccount) bool {
		return there[types.NamespacedName{Namespace: a.Namespace, Name: secretcontroller.SecretName(a.Name)}]
	})
}

// Lacking names the Secrets that World lacks: one of another type may be there
// under such a name, and take its place.
func (w World) Lacking() []types.NamespacedName {
	managed, _ := w.managed()
	var names []types.NamespacedName
	for _, account := range w.without(w.living(managed)) {
		names = append(names, types.NamespacedName{Namespace: account.Namespace, Name: secretcontroller.SecretName(account.Name)})
	}
	return names
}

func (x *examination) lacks(account corev1.ServiceAccount) {
	s := &x.report.Secrets
	if x.Now.Sub(account.CreationTimestamp.Time) < youth {
		s.Pending++
		return
	}
	s.Missing++
	want := secretcontroller.Want{Account: secretcontroller.Account{Namespace: account.Namespace, Name: account.Name}}
	v := secretcontroller.Judge(x.Now, nil, want)
	x.because(string(v.Reason), Example{account.Namespace, secretcontroller.SecretName(account.Name), v.Detail})
}

// judgeSecrets judges all by the roots in force, as the controller does.
func (x *examination) judgeSecrets(managed []string) {
	world := survey.World{Accounts: x.Accounts.Value, TrustDomain: x.TrustDomain, Rotation: x.Rotation,
		Bundles: survey.One(survey.NewBundle(x.inForce.from, x.inForce.certs))}
	for _, secret := range x.Secrets.Value {
		if slices.Contains(managed, secret.Namespace) {
			world.Secrets = append(world.Secrets, secret)
		}
	}
	found, err := survey.Survey(x.Now, world)
	if err != nil { // only for want of roots, and there are some
		x.unknown("secrets-right", err.Error())
	}
	for _, item := range found.Items {
		x.count(item)
	}
}

func (x *examination) count(item survey.Item) {
	s := &x.report.Secrets
	earliest(&s.SoonestExpiry, item.ExpiresAt)
	earliest(&s.SoonestRenewal, item.NextRotation)
	if item.Right {
		s.Right++
		return
	}
	p := item.Problems[0]
	late := p.Reason == string(secretcontroller.Expired) || p.Reason == string(secretcontroller.Due)
	switch {
	case p.Reason == survey.Orphan || p.Reason == survey.Misnamed:
		s.Orphans++
		return
	case p.Reason == string(secretcontroller.Due) && x.Now.Sub(item.NextRotation) < lateness:
		s.Right++ // its turn has only just come
		return
	case late:
		s.PastGrace++
	}
	s.Wrong++
	x.because(p.Reason, Example{item.Namespace, item.Name, p.Message})
}

func earliest(least *time.Time, t time.Time) {
	if !t.IsZero() && (least.IsZero() || t.Before(*least)) {
		*least = t
	}
}

func (x *examination) because(reason string, e Example) {
	s := &x.report.Secrets
	n := slices.IndexFunc(s.Reasons, func(r Reason) bool { return r.Reason == reason })
	if n < 0 {
		n, s.Reasons = len(s.Reasons), append(s.Reasons, Reason{Reason: reason, Examples: []Example{}})
	}
	r := &s.Reasons[n]
	if r.Count++; len(r.Examples) < x.Examples {
		r.Examples = append(r.Examples, e)
	}
}

func (x *examination) tellSecrets() {
	s := &x.report.Secrets
	slices.SortStableFunc(s.Reasons, func(a, b Reason) int { return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason)) })
	if s.Missing+s.Wrong == 0 {
		x.ok("secrets-right", "%s, in %s",
			numbered(s.Accounts-s.Pending, "service account has what it must", "service accounts have what they must"),
			numbered(s.Namespaces, "namespace", "namespaces"))
	}
	for _, r := range s.Reasons {
		x.fail("secrets-right", remedyOf(secretcontroller.Reason(r.Reason)), "%s not right (%s): %s",
			numbered(r.Count, "Secret is", "Secrets are"), r.Reason, x.named(r))
	}
	if s.Orphans > 0 {
		x.warn("secrets-orphaned", "citadel deletes those of its own making; the others are yours: see them with: citadelctl secret verify -A",
			"%s of no service account", numbered(s.Orphans, "Secret is", "Secrets are"))
	}
	if !s.SoonestExpiry.IsZero() && x.Now.Before(s.SoonestExpiry) {
		x.ok("secrets-last", "no certificate ends for %s", inspect.Span(s.SoonestExpiry.Sub(x.Now)))
	}
}

// named names the examples of a reason, and says how many more there are.
func (x *examination) named(r Reason) string {
	var parts []string
	for _, e := range r.Examples {
		parts = append(parts, fmt.Sprintf("%s/%s: %s", e.Namespace, e.Name, e.Message))
	}
	if more := r.Count - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(parts, "; ")
}

func numbered(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// remedyOf is what a person does about Secrets that citadel should have brought
// right by itself.
func remedyOf(reason secretcontroller.Reason) string {
	switch reason {
	case secretcontroller.WrongType:
		return "citadel does not touch a Secret of another type: delete or rename it, and citadel makes its own"
	case secretcontroller.OldRoots:
		return "after a change of roots Secrets are rewritten within --root-change-window: where that is past, see that a replica leads"
	case secretcontroller.WrongName:
		return "see that --trust-domain and the DNS names are citadel's, and that a replica leads: it makes such a Secret anew"
	}
	return "a replica that leads brings it right at once: see that one does, and what its log says of the Secret"
}
