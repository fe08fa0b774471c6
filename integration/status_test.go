package integration

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// said is what citadelctl answers.
type said struct {
	code           int
	stdout, stderr string
}

// ask runs citadelctl on the site's installation as the administrator, unless
// flags say otherwise.
func (s *site) ask(t *testing.T, args ...string) said {
	t.Helper()
	all := append([]string{args[0], "--kubeconfig", plane.Kubeconfig, "--citadel-storage-namespace", s.storage}, args[1:]...)
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), citadelctl, all...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit, failed := errors.AsType[*exec.ExitError](err); err != nil && (!failed || exit.ExitCode() < 0) {
		t.Fatalf("citadelctl %v: %v", all, err)
	}
	a := said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
	if strings.Contains(a.stdout+a.stderr, "PRIVATE KEY") {
		t.Errorf("citadelctl %v shows a private key", all)
	}
	return a
}

// byLabel is how the Citadels of these tests choose their namespaces.
const byLabel = "--enable-namespaces-by-default=false"

// is tells what an answer lacks.
func (a said) is(code int, texts ...string) error {
	if a.code != code {
		return fmt.Errorf("citadelctl exits with %d, want %d:\n%s%s", a.code, code, a.stdout, a.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(a.stdout, text) {
			return fmt.Errorf("citadelctl does not say %q:\n%s%s", text, a.stdout, a.stderr)
		}
	}
	return nil
}

// populated starts a Citadel with a service account that has its Secret.
func populated(t *testing.T, flags ...string) (*site, *process, *corev1.Secret) {
	t.Helper()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t, flags...)
	secret := right(t, makeAccount(t, ns, "sleep"), s.roots(t))
	within(t, patience, func() error { return s.ask(t, "status", byLabel).is(0) }) // the default account, and the ConfigMaps
	return s, p, secret
}

func TestStatusAndCheckOfAHealthyInstallation(t *testing.T) {
	t.Parallel()
	s, p, secret := populated(t)
	if err := s.ask(t, "status", byLabel).is(0, "self-signed, in secret/"+s.storage+"/istio-ca-secret", "in 1 of 1 namespace\n",
		"2 right of 2 service accounts in 1 namespace\n", "citadel runs outside of the cluster", "All is well."); err != nil {
		t.Error(err)
	}
	if err := s.ask(t, "check", byLabel, "--service-account", "citadel").is(0, "ok    lease-held: ", "ok    account-rights: ", "namespaces-are-ours: ", " 0 failed, ", ", 0 unknown\n"); err != nil {
		t.Error(err)
	}
	var status struct {
		Right     bool
		Leader    struct{ Holder string }
		Authority struct{ DaysLeft int }
		Secrets   struct{ Accounts, Right int }
	}
	if err := json.Unmarshal([]byte(s.ask(t, "status", byLabel, "-o", "json").stdout), &status); err != nil {
		t.Fatal(err)
	}
	if !status.Right || status.Leader.Holder == "" || status.Authority.DaysLeft < 3000 || status.Secrets.Right != 2 {
		t.Errorf("status %+v", status)
	}
	if err := s.ask(t, "status", byLabel, "--listened-namespaces", secret.Namespace).is(0); err != nil {
		t.Error(err)
	}
	if err := s.ask(t, "check", byLabel, "--service-account", "nobody").is(1, "FAIL  account-rights: service account "+s.storage+"/nobody may not: "); err != nil {
		t.Error(err)
	}
	p.answers(t, "/readyz", 200)
}

func TestStatusWhereThereIsNoCitadel(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	for _, command := range []string{"status", "check"} {
		if err := s.ask(t, command, byLabel).is(1, "there is no Deployment "+s.storage+"/istio-citadel", "kubectl apply -k deploy/", "there is no CA",
			"no replica has led yet", "ConfigMap istio-ca-root-cert is missing in "+ns); err != nil {
			t.Error(err)
		}
	}
}

func TestStatusTellsOfADeletedCASecret(t *testing.T) {
	t.Parallel()
	s, _, _ := populated(t)
	if err := plane.Client.CoreV1().Secrets(s.storage).Delete(t.Context(), "istio-ca-secret", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.ask(t, "status", byLabel).is(1, "CA:              none that can sign\n", "- ca-secret: there is no CA", "do not stop the replica that leads", "2 right of 2"); err != nil {
		t.Error(err)
	}
}

func TestStatusTellsOfAReplacedCASecret(t *testing.T) {
	t.Parallel()
	s, _, _ := populated(t)
	createSecret(t, plugged(t, s.storage, operatorsRoot(t)))
	if err := s.ask(t, "status", byLabel).is(1, "- roots-of-ca: the CA in secret/"+s.storage+"/cacerts is below a root"); err != nil {
		t.Error(err)
	}
}

func TestStatusTellsOfALeaseThatRanOut(t *testing.T) {
	t.Parallel()
	s, p, _ := populated(t, shortLease...)
	p.kill()
	within(t, patience, func() error {
		return s.ask(t, "check", byLabel, "--service-account", "citadel").is(1, "FAIL  lease-held: Lease "+s.storage+"/istio-citadel has run out", "remedy: nothing is renewed until a replica leads")
	})
}

func TestStatusNamesABrokenSecretAndWhy(t *testing.T) {
	t.Parallel()
	s, p, secret := populated(t)
	p.stop(t)
	broken := secret.DeepCopy()
	delete(broken.Data, keyKey)
	must(plane.Client.CoreV1().Secrets(broken.Namespace).Update(t.Context(), broken, metav1.UpdateOptions{}))(t)
	deleteSecret(t, must(getSecret(t.Context(), secret.Namespace, "default"))(t))
	createSecret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: secret.Namespace, Name: "istio.default"}})
	name := secret.Namespace + "/istio."
	for _, command := range []string{"status", "check"} {
		if err := s.ask(t, command, byLabel).is(1, "1 Secret is not right (key): "+name+"sleep: key.pem ", "1 Secret is not right (type): "+name+"default: type is \"Opaque\"",
			"nobody holds Lease"); err != nil {
			t.Error(err)
		}
	}
}

func TestStatusWithoutRightsSaysWhatItCannotSee(t *testing.T) {
	t.Parallel()
	s, _, _ := populated(t)
	s.bareAccount(t, "visitor")
	kubeconfig := filepath.Join(t.TempDir(), "visitor")
	if err := plane.ServiceAccount(t.Context(), s.storage, "visitor", kubeconfig); err != nil {
		t.Fatal(err)
	}
	if err := s.ask(t, "status", "--kubeconfig", kubeconfig).is(4, "unknown: no right to get secrets "+s.storage+"/cacerts", "unknown: no right to list secrets in all namespaces"); err != nil {
		t.Error(err)
	}
	if err := s.ask(t, "check", "--kubeconfig", kubeconfig).is(4, "?     account-rights: no right to create subjectaccessreviews", " 0 failed, "); err != nil {
		t.Error(err)
	}
	if err := s.ask(t, "check", "--pre", "--kubeconfig", kubeconfig).is(1, "FAIL  may-install: you may not: ", "FAIL  may-grant: "); err != nil {
		t.Error(err)
	}
}

// The replicas' own word comes by way of the API server. There is no node here:
// the pod's state is the test's, and it answers for a Citadel outside.
func TestCheckAsksTheReplicas(t *testing.T) {
	t.Parallel()
	s, p, _ := populated(t)
	labels := map[string]string{"istio": "citadel"}
	container := corev1.Container{Name: "citadel", Image: "citadel", Args: []string{byLabel},
		Ports: []corev1.ContainerPort{{Name: "http-monitoring", ContainerPort: int32(p.Port)}}}
	must(plane.Client.AppsV1().Deployments(s.storage).Create(t.Context(), &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Name: deployedName},
		Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: labels}, Template: corev1.PodTemplateSpec{
			ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{ServiceAccountName: "citadel", Containers: []corev1.Container{container}}}}},
		metav1.CreateOptions{}))(t)
	within(t, patience, func() error {
		return s.ask(t, "check").is(1, "FAIL  deployment-ready: none of 1 replicas is ready: istio-citadel-")
	})
	ip, want := "127.0.0.1", "FAIL  replica-ready: " // no API server goes there
	if ip = outwardIP(t, ip); ip != "127.0.0.1" {
		want = " can sign now\n"
	}
	within(t, patience, func() error { return pretendReady(t, s.storage, ip) })
	within(t, patience, func() error {
		a := s.ask(t, "check") // that namespaces are chosen by labels, the Deployment says
		return a.is(a.code, "warn  deployment-ready: the one replica is ready", "warn  leader-is-replica: the leader, ", "ok    account-rights: ", ", in 1 namespace\n", want)
	})
	if want == " can sign now\n" {
		if err := s.ask(t, "check").is(0, "ok    one-leader: one replica says that it leads"); err != nil {
			t.Error(err)
		}
	}
}

// outwardIP is an address of this machine that is not its loopback's, if it
// has one.
func outwardIP(t *testing.T, otherwise string) string {
	t.Helper()
	for _, addr := range must(net.InterfaceAddrs())(t) {
		if ip, ok := addr.(*net.IPNet); ok && ip.IP.To4() != nil && ip.IP.IsGlobalUnicast() {
			return ip.IP.String()
		}
	}
	return otherwise
}

func pretendReady(t *testing.T, namespace, ip string) error {
	t.Helper()
	pods := must(plane.Client.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "istio=citadel"}))(t).Items
	if len(pods) != 1 {
		return fmt.Errorf("%d pods", len(pods))
	}
	status := &pods[0].Status
	status.Phase, status.PodIP, status.PodIPs = corev1.PodRunning, ip, []corev1.PodIP{{IP: ip}}
	status.Conditions = slices.DeleteFunc(status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady })
	status.Conditions = append(status.Conditions, corev1.PodCondition{Type: corev1.PodReady, Status: corev1.ConditionTrue})
	_, err := plane.Client.CoreV1().Pods(namespace).UpdateStatus(t.Context(), &pods[0], metav1.UpdateOptions{})
	return err
}

func TestCheckBeforeInstallation(t *testing.T) {
	t.Parallel()
	s := &site{storage: "not-there-yet"}
	if err := s.ask(t, "check", "--pre", byLabel).is(0, "ok    api-version: ", "ok    clock: ", "ok    may-install: ", "namespace not-there-yet does not exist yet", "ok    istiod: ",
		"there is no CA yet", "no namespace has roots yet", "namespaces-are-ours: ", " 0 failed, ", ", 0 unknown\n"); err != nil {
		t.Error(err)
	}
	s = newSite(t)
	ns := s.namespace(t)
	must(plane.Client.CoreV1().ConfigMaps(ns).Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio-ca-root-cert"},
		Data: map[string]string{rootKey: string(operatorsRoot(t).PEM())}}, metav1.CreateOptions{}))(t)
	createSecret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: s.storage, Name: "istio-ca-secret"}})
	if err := s.ask(t, "check", "--pre", byLabel).is(1, "FAIL  ca-leftover: citadel would not start", "FAIL  roots-leftover: ConfigMap istio-ca-root-cert has roots that are not of this CA in "+ns); err != nil {
		t.Error(err)
	}
}
