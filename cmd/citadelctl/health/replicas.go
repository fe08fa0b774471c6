package health

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"citadel/ca/kube"
	"citadel/cmd/citadelctl/inspect"
)

// Replicas are the pods of the Deployment.
type Replicas struct {
	Unknown string `json:"unknown,omitempty"`
	// Deployed is false where there is no Deployment: citadel may run outside
	// of the cluster.
	Deployed bool  `json:"deployed"`
	Wanted   int   `json:"wanted"`
	Ready    int   `json:"ready"`
	Pods     []Pod `json:"pods,omitempty"`
}

// Pod is one replica.
type Pod struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
	// State is the phase, or why its container waits.
	State    string `json:"state"`
	Restarts int    `json:"restarts"`
}

// Leader is the replica that holds the lease.
type Leader struct {
	Unknown string `json:"unknown,omitempty"`
	// Holder is empty where nobody holds the lease.
	Holder    string    `json:"holder,omitempty"`
	RenewedAt time.Time `json:"renewedAt,omitzero"`
	Expired   bool      `json:"expired"`
}

func (x *examination) replicas() {
	x.section = "replicas"
	const name = "deployment-ready"
	r := &x.report.Replicas
	if r.Unknown = x.Deployment.Unknown; r.Unknown != "" {
		x.unknown(name, r.Unknown)
		return
	}
	d := x.Deployment.Value
	if d == nil {
		x.noDeployment(name)
		return
	}
	r.Deployed, r.Wanted, r.Ready = true, 1, int(d.Status.ReadyReplicas)
	if d.Spec.Replicas != nil {
		r.Wanted = int(*d.Spec.Replicas)
	}
	for _, pod := range x.Pods.Value {
		r.Pods = append(r.Pods, describePod(pod))
	}
	slices.SortFunc(r.Pods, func(a, b Pod) int { return cmp.Compare(a.Name, b.Name) })
	x.judgeReplicas(name, r, x.rollout(d, r))
}

// noDeployment is in order where somebody holds the lease all the same.
func (x *examination) noDeployment(name string) {
	lease := x.Lease.Value
	if x.Lease.Unknown == "" && lease != nil {
		x.warn(name, "if citadel is meant to run in the cluster: kubectl apply -k deploy/",
			"there is no Deployment %s, and a lease: citadel runs outside of the cluster, or under another name", x.storage(Deployment))
		return
	}
	x.fail(name, "install citadel: kubectl apply -k deploy/; or name the namespace that it is in by --citadel-storage-namespace",
		"there is no Deployment %s", x.storage(Deployment))
}

// rollout is the change from one version to the next, where there is one.
type rollout struct {
	underWay bool
	updated  int    // replicas of the new version
	stuck    []Pod  // that will not become ready by themselves
	failed   string // why the Deployment's controller gave up, if it did
}

func (x *examination) rollout(d *appsv1.Deployment, r *Replicas) rollout {
	s := d.Status
	out := rollout{updated: int(s.UpdatedReplicas)}
	out.underWay = s.ObservedGeneration < d.Generation || out.updated < r.Wanted || s.Replicas > s.UpdatedReplicas
	for _, c := range s.Conditions {
		if c.Type == appsv1.DeploymentProgressing && c.Status == corev1.ConditionFalse {
			out.failed = c.Reason + ": " + c.Message
		}
	}
	for _, p := range r.Pods {
		if slices.Contains(stuckStates, p.State) {
			out.stuck = append(out.stuck, p)
		}
	}
	return out
}

// stuckStates are those that a pod does not leave by itself.
var stuckStates = []string{"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError"}

func (x *examination) judgeReplicas(name string, r *Replicas, out rollout) {
	kubectl := "kubectl -n " + x.Scope.StorageNamespace
	look := "look at the pods: " + kubectl + " describe pods -l istio=citadel"
	undo := ""
	if out.underWay {
		undo = "; to go back to the version before: " + kubectl + " rollout undo deployment/" + Deployment
	}
	if len(out.stuck) > 0 {
		look = "see why: " + kubectl + " describe pod " + out.stuck[0].Name
	}
	switch {
	case r.Wanted == 0:
		x.fail(name, kubectl+" scale deployment/"+Deployment+" --replicas 2", "Deployment %s is scaled to 0", x.storage(Deployment))
	case r.Ready == 0:
		x.fail(name, look+"; and at their log: kubectl logs"+undo, "none of %d replicas is ready%s", r.Wanted, x.waiting(r.Pods))
	case out.failed != "":
		x.fail(name, look+undo, "%d of %d replicas are ready, and the rollout has failed: %s%s", r.Ready, r.Wanted, out.failed, x.waiting(r.Pods))
	case len(out.stuck) > 0:
		x.fail(name, look+undo, "%d of %d replicas are ready%s", r.Ready, r.Wanted, x.waiting(r.Pods))
	case out.underWay:
		x.warn(name, "wait for it: "+kubectl+" rollout status deployment/"+Deployment,
			"a rollout is under way: %d of %d replicas are of the new version, and %d are ready", out.updated, r.Wanted, r.Ready)
	case r.Ready < r.Wanted:
		x.fail(name, look, "%d of %d replicas are ready%s", r.Ready, r.Wanted, x.waiting(r.Pods))
	case r.Wanted == 1:
		x.warn(name, kubectl+" scale deployment/"+Deployment+" --replicas 2",
			"the one replica is ready; when its node is lost, nothing is renewed until it is back")
	default:
		x.ok(name, "%d of %d replicas are ready", r.Ready, r.Wanted)
	}
}

// waiting names the pods that are not ready, and why.
func (x *examination) waiting(pods []Pod) string {
	var names []string
	for _, p := range pods {
		if !p.Ready {
			names = append(names, p.Name+" is "+p.State)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return ": " + x.some(names)
}

func describePod(pod corev1.Pod) Pod {
	p := Pod{Name: pod.Name, State: string(pod.Status.Phase), Ready: Ready(pod)}
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		p.Restarts += int(c.RestartCount)
		if c.State.Waiting != nil && c.State.Waiting.Reason != "" {
			p.State = c.State.Waiting.Reason
		}
	}
	if pod.DeletionTimestamp != nil {
		p.State = "Terminating"
	}
	return p
}

// Ready tells whether a pod says that it is.
func Ready(pod corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

func (x *examination) leader() {
	const name = "lease-held"
	l := &x.report.Leader
	if l.Unknown = x.Lease.Unknown; l.Unknown != "" {
		x.unknown(name, l.Unknown)
		return
	}
	lease := x.Lease.Value
	if lease == nil {
		x.fail(name, "see that citadel runs and may write leases: its log says what it waits for", "there is no Lease %s: no replica has led yet", x.storage(kube.LeaseName))
		return
	}
	spec := lease.Spec
	if spec.HolderIdentity != nil {
		l.Holder = *spec.HolderIdentity
	}
	if spec.RenewTime != nil {
		l.RenewedAt = spec.RenewTime.UTC()
	}
	var life time.Duration
	if spec.LeaseDurationSeconds != nil {
		life = time.Duration(*spec.LeaseDurationSeconds) * time.Second
	}
	age := x.Now.Sub(l.RenewedAt)
	l.Expired = age > life+leaseSlack
	const remedy = "nothing is renewed until a replica leads: see that one runs and reaches the API server; its log says why it does not lead"
	switch {
	case x.HandedOver():
		x.warn(name, "wait: the next replica takes it within seconds; ask again", "nobody holds Lease %s: it was given back %s ago", x.storage(kube.LeaseName), inspect.Span(max(age, 0)))
	case l.Holder == "":
		x.fail(name, remedy, "nobody holds Lease %s: it was given back", x.storage(kube.LeaseName))
	case l.Expired:
		x.fail(name, remedy, "Lease %s has run out: %s renewed it %s ago, and it lasts %s", x.storage(kube.LeaseName), l.Holder, inspect.Span(age), inspect.Span(life))
	default:
		x.ok(name, "%s leads, and renewed its lease %s ago", l.Holder, inspect.Span(max(age, 0)))
		x.holder(l.Holder)
	}
}

// handover is how long a lease that was given back may be nobody's: as long as
// one lasts by default. What it says itself, then, is a second.
const handover = 15 * time.Second

// HandedOver tells whether the leader has just given the lease back, so that
// another is about to take it.
func (w World) HandedOver() bool {
	lease := w.Lease.Value
	if w.Lease.Unknown != "" || lease == nil || lease.Spec.RenewTime == nil {
		return false
	}
	holder := lease.Spec.HolderIdentity
	return (holder == nil || *holder == "") && w.Now.Sub(lease.Spec.RenewTime.Time) <= handover
}

// leaseSlack is for clocks that differ by a little.
const leaseSlack = 2 * time.Second

// holder compares the leader with the pods. Its name begins with its host's,
// which in a pod is the pod's.
func (x *examination) holder(holder string) {
	if x.Deployment.Value == nil || x.Deployment.Unknown+x.Pods.Unknown != "" {
		return
	}
	const name = "leader-is-replica"
	host, _, _ := strings.Cut(holder, "_")
	if slices.ContainsFunc(x.Pods.Value, func(p corev1.Pod) bool { return p.Name == host }) {
		x.ok(name, "the leader is a pod of the Deployment")
		return
	}
	x.warn(name, fmt.Sprintf("find out what runs as %s, and stop it if it is not yours", host),
		"the leader, %s, is no pod of Deployment %s: a citadel elsewhere writes", host, x.storage(Deployment))
}
