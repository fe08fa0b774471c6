package health

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/secretcontroller"
)

const storage = "istio-system"

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

// patient is an installation, well until a test harms it.
type patient struct {
	World
	t    *testing.T
	root *trust.Signer
}

func meta(namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "1", CreationTimestamp: metav1.NewTime(now.Add(-time.Hour))}
}

func newPatient(t *testing.T) *patient {
	t.Helper()
	p := &patient{t: t, root: catest.SelfSigned(t, now.Add(-100*time.Hour), catest.TrustDomain)}
	p.World = World{Now: now, Examples: 2, Rotation: secretcontroller.DefaultRotation(),
		Scope: secretcontroller.Scope{StorageNamespace: storage, EnabledByDefault: true}}
	p.CASecret.Value = &corev1.Secret{ObjectMeta: meta(storage, kube.CASecret), Type: kube.CASecretType,
		Data: map[string][]byte{kube.CACertKey: p.root.RootsPEM(), kube.CAKeyKey: catest.KeyPEM(t, p.root.Key())}}
	p.Lease.Value = &coordinationv1.Lease{ObjectMeta: meta(storage, kube.LeaseName), Spec: coordinationv1.LeaseSpec{
		HolderIdentity: new("pod-a_1"), LeaseDurationSeconds: new(int32(15)), RenewTime: new(metav1.NewMicroTime(now.Add(-time.Second)))}}
	p.Deployment.Value = &appsv1.Deployment{ObjectMeta: meta(storage, Deployment),
		Spec: appsv1.DeploymentSpec{Replicas: new(int32(2)), Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"istio": "citadel"}}}, Status: appsv1.DeploymentStatus{Replicas: 2, UpdatedReplicas: 2, ReadyReplicas: 2}}
	p.Pods.Value = []corev1.Pod{pod("pod-b", true), pod("pod-a", true)}
	for _, ns := range []string{storage, "web", "kube-public"} {
		p.Namespaces.Value = append(p.Namespaces.Value, corev1.Namespace{ObjectMeta: meta("", ns)})
		if ns != "kube-public" {
			p.Roots.Value = append(p.Roots.Value, corev1.ConfigMap{ObjectMeta: meta(ns, secretcontroller.RootsConfigMap),
				Data: map[string]string{secretcontroller.RootsKey: string(p.root.RootsPEM())}})
		}
	}
	p.Legacy.Value = &corev1.ConfigMap{ObjectMeta: meta(storage, secretcontroller.LegacyConfigMap),
		Data: map[string]string{secretcontroller.LegacyRootsKey: base64.StdEncoding.EncodeToString(p.root.RootsPEM())}}
	for _, name := range []string{"a", "b", "c"} {
		p.give("web", name, now)
	}
	return p
}

func pod(name string, ready bool) corev1.Pod {
	status := corev1.ConditionFalse
	if ready {
		status = corev1.ConditionTrue
	}
	return corev1.Pod{ObjectMeta: meta(storage, name), Status: corev1.PodStatus{Phase: corev1.PodRunning,
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}}}
}

// give makes a service account, and its Secret as of then.
func (p *patient) give(namespace, name string, then time.Time) {
	p.t.Helper()
	p.Accounts.Value = append(p.Accounts.Value, corev1.ServiceAccount{ObjectMeta: meta(namespace, name)})
	id, err := ca.ServiceAccountID(catest.TrustDomain, namespace, name)
	if err != nil {
		p.t.Fatal(err)
	}
	issuer := &catest.Issuer{Cert: p.root.Cert(), Key: p.root.Key()}
	leaf := issuer.Leaf(p.t, then, id)
	secret := corev1.Secret{ObjectMeta: meta(namespace, secretcontroller.SecretName(name)), Type: secretcontroller.SecretType, Data: map[string][]byte{
		secretcontroller.ChainKey: leaf.PEM(), secretcontroller.KeyKey: catest.KeyPEM(p.t, leaf.Key), secretcontroller.RootsKey: p.root.RootsPEM()}}
	secret.Annotations = map[string]string{secretcontroller.AccountAnnotation: name}
	p.Secrets.Value = append(p.Secrets.Value, secret)
}

// bad are the checks that did not pass, in words.
func bad(r Report) string {
	var out []string
	for _, c := range r.Checks {
		if c.Outcome != Passed {
			out = append(out, fmt.Sprintf("%s %s", c.Name, c.Outcome))
		}
		if c.Outcome == Failed && c.Remedy == "" {
			out = append(out, c.Name+" has no remedy")
		}
	}
	return strings.Join(out, ", ")
}

func TestLook(t *testing.T) {
	for name, c := range map[string]struct {
		harm func(*patient)
		want string // checks that do not pass
		text string // of one of their messages
	}{
		"well":                {func(*patient) {}, "", ""},
		"no citadel":          {func(p *patient) { p.World = empty(p) }, "deployment-ready failed, lease-held failed, ca-secret failed, roots-published failed, secrets-right failed", "there is no Deployment istio-system/istio-citadel"},
		"outside the cluster": {func(p *patient) { p.Deployment.Value = nil }, "deployment-ready warning", "citadel runs outside of the cluster"},
		"not ready":           {func(p *patient) { p.Deployment.Value.Status.ReadyReplicas, p.Pods.Value[0] = 1, pod("pod-b", false) }, "deployment-ready failed", "1 of 2 replicas are ready: pod-b is Running"},
		"none ready":          {func(p *patient) { p.Deployment.Value.Status.ReadyReplicas = 0 }, "deployment-ready failed", "none of 2"},
		"scaled to 0":         {func(p *patient) { p.Deployment.Value.Spec.Replicas = new(int32(0)) }, "deployment-ready failed", "scaled to 0"},
		"one replica":         {func(p *patient) { p.scale(1) }, "deployment-ready warning", "the one replica"},
		"rollout fresh":       {func(p *patient) { p.rollOut("ContainerCreating") }, "deployment-ready warning", "a rollout is under way: 1 of 2 replicas are of the new version, and 2 are ready"},
		"rollout not seen":    {func(p *patient) { p.Deployment.Value.Generation = 2 }, "deployment-ready warning", "a rollout is under way"},
		"rollout leaves":      {func(p *patient) { p.Deployment.Value.Status.Replicas = 3 }, "deployment-ready warning", "a rollout is under way: 2 of 2"},
		"rollout cannot pull": {func(p *patient) { p.rollOut("ErrImagePull") }, "deployment-ready failed", "2 of 2 replicas are ready: pod-new is ErrImagePull"},
		"rollout pulls never": {func(p *patient) { p.rollOut("ImagePullBackOff") }, "deployment-ready failed", "kubectl -n istio-system describe pod pod-new; to go back to the version before: kubectl -n istio-system rollout undo deployment/istio-citadel"},
		"rollout crashes":     {func(p *patient) { p.rollOut("CrashLoopBackOff") }, "deployment-ready failed", "pod-new is CrashLoopBackOff"},
		"rollout lacks a map": {func(p *patient) { p.rollOut("CreateContainerConfigError") }, "deployment-ready failed", "pod-new is CreateContainerConfigError"},
		"rollout given up": {func(p *patient) {
			p.rollOut("PodInitializing")
			p.Deployment.Value.Status.Conditions[0].Status, p.Deployment.Value.Status.Conditions[0].Reason = corev1.ConditionFalse, "ProgressDeadlineExceeded"
		}, "deployment-ready failed", "the rollout has failed: ProgressDeadlineExceeded: of a test: pod-new is PodInitializing"},
		"rollout, one on its way out": {func(p *patient) {
			p.rollOut("ErrImagePull")
			p.Pods.Value[2].DeletionTimestamp = new(metav1.NewTime(now))
		}, "deployment-ready warning", ""},
		"no lease":            {func(p *patient) { p.Lease.Value = nil }, "lease-held failed", "no replica has led yet"},
		"given back just now": {func(p *patient) { p.giveBack(3 * time.Second) }, "lease-held warning", "it was given back 3s ago"},
		"given back for good": {func(p *patient) { p.giveBack(16 * time.Second) }, "lease-held failed", "given back"},
		"run out":             {func(p *patient) { p.renewed(-18 * time.Second) }, "lease-held failed", "pod-a_1 renewed it 18s ago, and it lasts 15s"},
		"almost run out":      {func(p *patient) { p.renewed(-15 * time.Second) }, "", ""},
		"renewed in future":   {func(p *patient) { p.renewed(time.Second) }, "", ""},
		"another leads":       {func(p *patient) { p.Lease.Value.Spec.HolderIdentity = new("laptop_7") }, "leader-is-replica warning", "laptop, is no pod"},
		"CA deleted":          {func(p *patient) { p.CASecret.Value = nil }, "ca-secret failed", "there is no CA"},
		"CA emptied":          {func(p *patient) { p.CASecret.Value.Data = nil }, "ca-secret failed", "holds no certificate"},
		"CA's key another's": {func(p *patient) {
			p.CASecret.Value.Data[kube.CAKeyKey] = catest.KeyPEM(p.t, catest.Key(p.t, trust.ECDSAP256, "x"))
		}, "ca-secret failed", "does not match the key"},
		"CA replaced":        {func(p *patient) { p.replaceCA() }, "roots-of-ca failed", "lack if the CA was changed on purpose, its root-cert.pem (or --root-cert) must also hold the roots in force, until all Secrets are renewed"},
		"CA in files":        {func(p *patient) { p.FromFiles, p.CASecret.Value = true, nil }, "ca-secret warning", "cannot be seen from here"},
		"operator's CA":      {func(p *patient) { p.Plugged.Value, p.CASecret.Value = p.CASecret.Value.DeepCopy(), nil; p.plug() }, "", ""},
		"ends soon":          {func(p *patient) { p.age(20 * 24 * time.Hour) }, "ca-life failed, roots-life failed", "ends in 20d"},
		"roots missing":      {func(p *patient) { p.Roots.Value = p.Roots.Value[:1] }, "roots-published failed", "is missing in web"},
		"roots damaged":      {func(p *patient) { p.Roots.Value[1].Data = nil }, "roots-published failed", "is damaged in web"},
		"roots differ":       {func(p *patient) { p.otherRoots(1) }, "roots-published failed", "has other roots in web"},
		"old agents":         {func(p *patient) { p.Legacy.Value.Data = nil }, "roots-for-old-agents failed", "does not hold the roots"},
		"no old agents' map": {func(p *patient) { p.Legacy.Value = nil }, "roots-for-old-agents failed", "there is no ConfigMap"},
		"Secret missing":     {func(p *patient) { p.Secrets.Value = p.Secrets.Value[1:] }, "secrets-right failed", "(missing): web/istio.a: there is no Secret istio.a"},
		"account is new": {func(p *patient) {
			p.Secrets.Value = p.Secrets.Value[1:]
			p.Accounts.Value[0].CreationTimestamp = metav1.NewTime(now)
		}, "", ""},
		"account is going": {func(p *patient) {
			p.Secrets.Value = p.Secrets.Value[1:]
			p.Accounts.Value[0].DeletionTimestamp = new(metav1.NewTime(now))
		}, "", ""},
		"key lost":    {func(p *patient) { delete(p.Secrets.Value[1].Data, secretcontroller.KeyKey) }, "secrets-right failed", "1 Secret is not right (key): web/istio.b: key.pem holds no PEM private key"},
		"many wrong":  {func(p *patient) { p.retype() }, "secrets-right failed", "3 Secrets are not right (type): web/istio.a: type is \"Opaque\"; web/istio.b: type is \"Opaque\"; and 1 more"},
		"two reasons": {func(p *patient) { p.Secrets.Value[0].Data = nil; p.Secrets.Value[2].Type = "" }, "secrets-right failed, secrets-right failed", "(chain)"},
		"past grace":  {func(p *patient) { p.give("web", "old", now.Add(-50*time.Minute)) }, "secrets-right failed", "(rotation): web/istio.old"},
		"expired":     {func(p *patient) { p.give("web", "old", now.Add(-2*time.Hour)) }, "secrets-right failed", "(expired): web/istio.old"},
		"orphan":      {func(p *patient) { p.Accounts.Value = p.Accounts.Value[1:] }, "secrets-orphaned warning", "1 Secret is of no service account"},
		"not managed": {func(p *patient) {
			p.Namespaces.Value[1].Labels = map[string]string{secretcontroller.OverrideLabel: "false"}
			p.Secrets.Value[0].Data = nil
		}, "", ""},
		"no right to Secrets": {func(p *patient) {
			p.Secrets = Seen[[]corev1.Secret]{Unknown: "no right to list secrets"}
			p.CASecret.Unknown = "no right"
		}, "ca-secret unknown, secrets-right unknown", "no right to list secrets"},
		"no right to anything": {func(p *patient) { p.blind() }, "deployment-ready unknown, lease-held unknown, ca-secret unknown, roots-published unknown, roots-for-old-agents unknown, secrets-right unknown", "no right"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t)
			c.harm(p)
			r := Look(p.World)
			if got := bad(r); got != c.want {
				t.Errorf("not passed: %s\nwant: %s", got, c.want)
			}
			if !strings.Contains(fmt.Sprint(r.Checks), c.text) {
				t.Errorf("no check says %q: %+v", c.text, r.Checks)
			}
			if s := r.Secrets; s.Right+s.Pending+s.Missing+s.Wrong != s.Accounts && s.Unknown == "" {
				t.Errorf("%d right + %d pending + %d missing + %d wrong are not %d accounts", s.Right, s.Pending, s.Missing, s.Wrong, s.Accounts)
			}
		})
	}
}

// empty is a cluster in which citadel never was.
func empty(p *patient) World {
	return World{Now: now, Examples: 1, Scope: p.Scope, Rotation: p.Rotation, Namespaces: p.Namespaces, Accounts: p.Accounts}
}

func (p *patient) renewed(ago time.Duration) {
	p.Lease.Value.Spec.RenewTime = new(metav1.NewMicroTime(now.Add(ago)))
}

func (p *patient) scale(replicas int32) {
	p.Deployment.Value.Spec.Replicas = new(replicas)
	p.Deployment.Value.Status = appsv1.DeploymentStatus{Replicas: replicas, UpdatedReplicas: replicas, ReadyReplicas: replicas}
}

// rollOut adds one pod of a new version, which waits.
func (p *patient) rollOut(why string) {
	p.Deployment.Value.Generation = 2
	p.Deployment.Value.Status = appsv1.DeploymentStatus{ObservedGeneration: 2, Replicas: 3, UpdatedReplicas: 1, ReadyReplicas: 2,
		Conditions: []appsv1.DeploymentCondition{{Type: appsv1.DeploymentProgressing, Status: corev1.ConditionTrue, Reason: "ReplicaSetUpdated", Message: "of a test"}}}
	next := pod("pod-new", false)
	next.Status.ContainerStatuses = []corev1.ContainerStatus{{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why}}}}
	p.Pods.Value = append(p.Pods.Value, next)
}

// giveBack does as client-go does.
func (p *patient) giveBack(ago time.Duration) {
	p.Lease.Value.Spec.HolderIdentity, p.Lease.Value.Spec.LeaseDurationSeconds = new(""), new(int32(1))
	p.renewed(-ago)
}

func (p *patient) replaceCA() {
	other := catest.SelfSigned(p.t, now, catest.TrustDomain)
	p.CASecret.Value.Data = map[string][]byte{kube.CACertKey: other.RootsPEM(), kube.CAKeyKey: catest.KeyPEM(p.t, other.Key())}
}

// plug makes the operator's CA of the root itself.
func (p *patient) plug() {
	p.Plugged.Value.Name, p.Plugged.Value.Type = kube.PluggedSecret, corev1.SecretTypeOpaque
	p.Plugged.Value.Data[kube.PluggedRootKey] = p.root.RootsPEM()
}

func (p *patient) otherRoots(n int) {
	other := catest.SelfSigned(p.t, now, catest.TrustDomain)
	p.Roots.Value[n].Data = map[string]string{secretcontroller.RootsKey: string(other.RootsPEM())}
}

// age lets time pass until the root has that much left, and renews Secrets.
func (p *patient) age(left time.Duration) {
	p.Now = p.root.NotAfter().Add(-left)
	p.renewed(p.Now.Sub(now) - time.Second)
	p.Accounts.Value, p.Secrets.Value = nil, nil
	p.give("web", "a", p.Now)
}

func (p *patient) retype() {
	for n := range p.Secrets.Value {
		p.Secrets.Value[n].Type = corev1.SecretTypeOpaque
	}
}

func (p *patient) blind() {
	const no = "no right"
	p.World = World{Now: now, Scope: p.Scope, Examples: 1}
	p.CASecret.Unknown, p.Plugged.Unknown, p.Lease.Unknown, p.Deployment.Unknown, p.Pods.Unknown = no, no, no, no, no
	p.Namespaces.Unknown, p.Accounts.Unknown, p.Secrets.Unknown, p.Roots.Unknown, p.Legacy.Unknown = no, no, no, no, no
}

func TestReport(t *testing.T) {
	r := Look(newPatient(t).World)
	if a := r.Authority; a.Source != "secret/istio-system/istio-ca-secret" || a.KeyType != "ECDSA P-256" || !a.SelfSigned || a.DaysLeft < 300 {
		t.Errorf("CA %+v", a)
	}
	if len(r.Roots.Certificates) != 1 || r.Roots.Namespaces != 2 || r.Roots.Published != 2 {
		t.Errorf("roots %+v", r.Roots)
	}
	if len(r.Replicas.Pods) != 2 || r.Replicas.Pods[0].Name != "pod-a" || !r.Replicas.Pods[0].Ready || r.Leader.Holder != "pod-a_1" {
		t.Errorf("replicas %+v, leader %+v", r.Replicas, r.Leader)
	}
	s := r.Secrets
	if s.Accounts != 3 || s.Right != 3 || !s.SoonestExpiry.After(now) || !s.SoonestRenewal.After(now) || !s.SoonestRenewal.Before(s.SoonestExpiry) {
		t.Errorf("Secrets %+v", s)
	}
}

// TestLacking: another's Secret of the name takes the place of one that is
// missing, and the reason is told.
func TestLacking(t *testing.T) {
	p := newPatient(t)
	taken := p.Secrets.Value[0]
	p.Secrets.Value = p.Secrets.Value[1:]
	if got := fmt.Sprint(p.Lacking()); got != "[web/istio.a]" {
		t.Fatalf("lacking %s", got)
	}
	taken.Type = corev1.SecretTypeOpaque
	p.Secrets.Value = append(p.Secrets.Value, taken)
	if s := Look(p.World).Secrets; s.Missing != 0 || s.Wrong != 1 || s.Reasons[0].Reason != "type" {
		t.Errorf("Secrets %+v", s)
	}
}

func TestVerdict(t *testing.T) {
	for want, outcomes := range map[Outcome][]Outcome{
		Passed: {Passed, Warned}, Unknown: {Unknown, Passed, Warned}, Failed: {Unknown, Failed, Passed},
	} {
		var checks []Check
		for _, o := range outcomes {
			checks = append(checks, Check{Outcome: o})
		}
		if got := Verdict(checks); got != want {
			t.Errorf("%v: %s, want %s", outcomes, got, want)
		}
	}
}

func TestLeftovers(t *testing.T) {
	gone := func(p *patient) { p.Deployment.Value, p.Lease.Value, p.Pods.Value = nil, nil, nil }
	for name, c := range map[string]struct {
		change     func(*patient)
		want, text string
	}{
		"nothing":              {func(p *patient) { p.World = empty(p) }, "", "no namespace has roots yet"},
		"a citadel runs":       {func(*patient) {}, "no-other-citadel warning", "there is a Deployment"},
		"one of old labels":    {func(p *patient) { p.Deployment.Value.Spec.Selector.MatchLabels["release"] = "istio" }, "no-other-citadel failed", "selects its pods by istio=citadel,release=istio"},
		"one runs elsewhere":   {func(p *patient) { p.Deployment.Value = nil }, "no-other-citadel warning", "pod-a_1 holds Lease"},
		"all but the process":  {gone, "", "would be used as it is"},
		"a CA that cannot":     {func(p *patient) { gone(p); p.CASecret.Value.Data[kube.CAKeyKey] = nil }, "ca-leftover failed, roots-leftover failed", "citadel would not start"},
		"a CA that ends":       {func(p *patient) { gone(p); p.Now = p.root.NotAfter().Add(-Soon / 2) }, "ca-leftover warning", "ends in 15d"},
		"another's roots":      {func(p *patient) { gone(p); p.otherRoots(0) }, "roots-leftover failed", "not of this CA in istio-system"},
		"roots without a CA":   {func(p *patient) { gone(p); p.CASecret.Value = nil }, "roots-leftover failed", "in istio-system, web"},
		"no right to anything": {(*patient).blind, "no-other-citadel unknown, ca-leftover unknown, roots-leftover unknown", "no right"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPatient(t)
			c.change(p)
			checks := Leftovers(p.World)
			if got := bad(Report{Checks: checks}); got != c.want || !strings.Contains(fmt.Sprint(checks), c.text) {
				t.Errorf("not passed: %s\nwant: %s, and %q in %+v", got, c.want, c.text, checks)
			}
		})
	}
}
