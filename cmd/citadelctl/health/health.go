// Package health judges an installation of citadel as a whole: its CA, the
// roots in force, its replicas and their leader, and all Secrets.
//
// It is pure: what was read of a cluster goes in as a World, together with what
// could not be read and why, and checks with remedies come out. Secrets are
// judged by the controller's own Judge, by way of package survey. It refuses to
// do I/O, to read a clock, and to take what it was not shown for good or bad.
package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"

	"citadel/secretcontroller"
)

// Names of what deploy/ makes.
const (
	Deployment     = "istio-citadel"
	ServiceAccount = "istio-citadel-service-account"
	MonitoringPort = "http-monitoring"
)

// Soon is how long before its end a CA's certificate needs a person: citadel
// itself begins to warn then.
const Soon = 30 * 24 * time.Hour

// Seen is what was read, or why it could not be.
type Seen[T any] struct {
	Value T // not to be looked at where Unknown says something
	// Unknown says why there is no value, in the words of a person.
	Unknown string
}

// World is what was read of a cluster. A nil object is one that does not exist.
type World struct {
	// Now is the API server's.
	Now         time.Time
	Scope       secretcontroller.Scope
	TrustDomain spiffeid.TrustDomain // zero: the roots'
	Rotation    secretcontroller.Rotation
	// FromFiles says that citadel signs with files that its flags name.
	FromFiles bool
	// Examples is how many Secrets, namespaces and the like are named of many.
	Examples int

	CASecret, Plugged Seen[*corev1.Secret]
	Lease             Seen[*coordinationv1.Lease]
	Deployment        Seen[*appsv1.Deployment]
	Pods              Seen[[]corev1.Pod] // of the Deployment
	Namespaces        Seen[[]corev1.Namespace]
	Accounts          Seen[[]corev1.ServiceAccount]
	Secrets           Seen[[]corev1.Secret] // workloads', read before Accounts
	Roots             Seen[[]corev1.ConfigMap]
	Legacy            Seen[*corev1.ConfigMap]
}

// Outcome is what became of a check.
type Outcome string

// The outcomes.
const (
	Passed  Outcome = "passed"
	Warned  Outcome = "warning" // worth knowing, and nobody has to act
	Failed  Outcome = "failed"  // a person has to act
	Unknown Outcome = "unknown" // it could not be looked at
)

// Check is one thing that was looked at. It is a stable form for programs.
type Check struct {
	Section string `json:"section"`
	// Name is the same for ever, for programs.
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	// Message says what was found.
	Message string `json:"message"`
	// Remedy says what to do; absent where there is nothing.
	Remedy string `json:"remedy,omitempty"`
}

// Report is the state of an installation. It is a stable form for programs.
type Report struct {
	StorageNamespace string    `json:"storageNamespace"`
	Authority        Authority `json:"authority"`
	Roots            Roots     `json:"roots"`
	Replicas         Replicas  `json:"replicas"`
	Leader           Leader    `json:"leader"`
	Secrets          Secrets   `json:"secrets"`
	// Checks are all that were made.
	Checks []Check `json:"checks"`
}

// Look judges the world.
func Look(w World) Report {
	r := Report{StorageNamespace: w.Scope.StorageNamespace}
	x := &examination{World: w, report: &r}
	x.replicas()
	x.leader()
	x.authority()
	x.roots()
	x.secrets()
	return r
}

// Verdict is the worst of outcomes that decides: Failed, else Unknown, else
// Passed.
func Verdict(checks []Check) Outcome {
	worst := Passed
	for _, c := range checks {
		if c.Outcome == Failed || c.Outcome == Unknown && worst == Passed {
			worst = c.Outcome
		}
	}
	return worst
}

// examination is one run of Look.
type examination struct {
	World
	report  *Report
	section string
	signer  signer
	inForce bundle
}

// ok, warn, fail and unknown note what a check found.
func (x *examination) ok(name, format string, args ...any) {
	x.add(name, Passed, fmt.Sprintf(format, args...), "")
}

func (x *examination) warn(name, remedy, format string, args ...any) {
	x.add(name, Warned, fmt.Sprintf(format, args...), remedy)
}

func (x *examination) fail(name, remedy, format string, args ...any) {
	x.add(name, Failed, fmt.Sprintf(format, args...), remedy)
}

func (x *examination) unknown(name, why string) { x.add(name, Unknown, why, "") }

func (x *examination) add(name string, outcome Outcome, message, remedy string) {
	x.report.Checks = append(x.report.Checks, Check{Section: x.section, Name: name, Outcome: outcome, Message: message, Remedy: remedy})
}

// storage is the namespace, with a name in it: for messages.
func (x *examination) storage(name string) string { return x.Scope.StorageNamespace + "/" + name }

// some names the first of many.
func (x *examination) some(names []string) string {
	if n := len(names) - x.Examples; n > 0 {
		return strings.TrimPrefix(fmt.Sprintf("%s and %d more", strings.Join(names[:x.Examples], ", "), n), " and ")
	}
	return strings.Join(names, ", ")
}

// managed returns the namespaces that are citadel's to fill, by name, sorted;
// false where it cannot be known which are.
func (w World) managed() ([]string, bool) {
	if len(w.Scope.Listed) > 0 {
		return slices.Sorted(slices.Values(w.Scope.Listed)), true
	}
	if w.Namespaces.Unknown != "" {
		return nil, false
	}
	var names []string
	for _, ns := range w.Namespaces.Value {
		if yes, _ := w.Scope.Manages(ns.Name, ns.Labels); yes && ns.DeletionTimestamp == nil {
			names = append(names, ns.Name)
		}
	}
	slices.SortFunc(names, cmp.Compare)
	return names, true
}
