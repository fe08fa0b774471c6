package integration

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/kube"
)

// tell runs a command of citadelctl's that is a part of another, on the site's
// installation as the administrator.
func (s *site) tell(t *testing.T, args ...string) said {
	t.Helper()
	return s.tellFrom(t, "", args...)
}

// tellFrom does so with a standard input.
func (s *site) tellFrom(t *testing.T, stdin string, args ...string) said {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), citadelctl, append(slices.Clone(args), "--kubeconfig", plane.Kubeconfig, "--citadel-storage-namespace", s.storage)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	err := cmd.Run()
	if exit, failed := errors.AsType[*exec.ExitError](err); err != nil && (!failed || exit.ExitCode() < 0) {
		t.Fatalf("citadelctl %v: %v", args, err)
	}
	return said{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// does fails the test unless a command succeeds and says so on standard error.
func (a said) does(t *testing.T, texts ...string) said {
	t.Helper()
	if a.code != 0 {
		t.Fatalf("citadelctl exits with %d:\n%s%s", a.code, a.stdout, a.stderr)
	}
	for _, text := range texts {
		if !strings.Contains(a.stderr, text) {
			t.Errorf("citadelctl does not say %q:\n%s", text, a.stderr)
		}
	}
	return a
}

// invite makes a token for vm/web, and returns how a host joins by it.
func (s *site) invite(t *testing.T, p *process, flags ...string) (text string, cfg caclient.Config) {
	t.Helper()
	address := p.api(nil).Address
	a := s.tell(t, append([]string{"token", "create", "--namespace", "vm", "--service-account", "web", "--address", address}, flags...)...).does(t,
		"as spiffe://cluster.local/ns/vm/sa/web, at "+address, "neither namespace vm nor its service account web does exist")
	join := must(caclient.ParseJoin(a.stdout))(t)
	for _, secret := range []string{strings.TrimSpace(a.stdout), join.Bearer, join.Bearer[strings.LastIndexByte(join.Bearer, '.')+1:]} {
		if strings.Contains(a.stderr, secret) {
			t.Error("citadelctl tells the secret")
		}
	}
	return a.stdout, caclient.Config{Address: join.Address, Fingerprints: join.Fingerprints, Token: join.Bearer}
}

// tokens is the list, by ID.
func (s *site) tokens(t *testing.T) map[string]struct{ UsesLeft, Uses int } {
	t.Helper()
	var list struct {
		Items []struct {
			ID             string
			UsesLeft, Uses int
		}
	}
	if err := json.Unmarshal([]byte(s.tell(t, "token", "list", "-o", "json").does(t).stdout), &list); err != nil {
		t.Fatal(err)
	}
	byID := map[string]struct{ UsesLeft, Uses int }{}
	for _, item := range list.Items {
		byID[item.ID] = struct{ UsesLeft, Uses int }{item.UsesLeft, item.Uses}
	}
	return byID
}

// tokenID is the public part of what a host proves itself by.
func tokenID(bearer string) string { return strings.Split(bearer, ".")[1] }

// refusal tells what a refused request lacks.
func refusal(err error, kind caclient.Kind, reason string) error {
	if e, ok := errors.AsType[*caclient.Error](err); !ok || e.Kind != kind || !strings.Contains(e.Reason, reason) {
		return fmt.Errorf("not refused by %q: %v", reason, err)
	}
	return nil
}

// TestTokensByCommand: what citadelctl prints is all that a host needs, counts
// as often as was said, and no more once it is revoked.
func TestTokensByCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start(t)
	p.serves(t)
	within(t, patience, func() error { // until the roots are published
		return s.tell(t, "token", "create", "-n", "vm", "--service-account", "db", "--address", p.api(nil).Address).is(0)
	})
	_, cfg := s.invite(t, p)
	issued := must(sign(t, cfg, "vm"))(t)
	if id := issued.Chain[0].URIs[0].String(); id != "spiffe://cluster.local/ns/vm/sa/web" {
		t.Errorf("joined as %s", id)
	}
	if left, ok := s.tokens(t)[tokenID(cfg.Token)]; !ok || left.UsesLeft != 0 || left.Uses != 1 {
		t.Errorf("after one use of one: %+v", left)
	}
	if a := s.tell(t, "token", "list").does(t); !strings.Contains(a.stdout, "spiffe://cluster.local/ns/vm/sa/web   0 of 1      in 59m") {
		t.Errorf("list:\n%s", a.stdout)
	}
	_, err := sign(t, cfg, "another vm")
	if err := refusal(err, caclient.NotProven, "has been used (1 of 1)"); err != nil {
		t.Error(err)
	}
	wrong := cfg
	wrong.Fingerprints = []string{strings.Repeat("0", 64)}
	if _, err := sign(t, wrong, "vm"); err == nil {
		t.Error("a host believes a root of another fingerprint")
	}

	text, cfg := s.invite(t, p, "--uses", "2", "--ttl", "1m")
	must(sign(t, cfg, "vm"))(t)
	s.tellFrom(t, text, "token", "revoke", "-").does(t, "Revoked join token "+tokenID(cfg.Token)+": ", "citadelctl identity ban vm/web")
	_, err = sign(t, cfg, "another vm")
	if err := refusal(err, caclient.NotProven, "was revoked"); err != nil {
		t.Error(err)
	}
	if _, ok := s.tokens(t)[tokenID(cfg.Token)]; ok {
		t.Error("a revoked token is listed")
	}
	if a := s.tell(t, "token", "revoke", tokenID(cfg.Token)); a.code != 3 {
		t.Errorf("revoked again: %+v", a)
	}
	for _, name := range []string{"log", "audit"} {
		if strings.Contains(p.read(t, name), cfg.Token[strings.LastIndexByte(cfg.Token, '.')+1:]) {
			t.Errorf("citadel's %s holds the secret", name)
		}
	}
}

// TestBansByCommand: a ban counts within seconds, on every replica, for hosts
// and for Secrets, with its reason; and no longer than it lasts.
func TestBansByCommand(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	one := s.start(t)
	other := s.launch(t, launch{account: s.newAccount(t, "other")})
	other.ready(t)
	one.serves(t)
	other.serves(t)
	roots := s.roots(t)
	secret := right(t, makeAccount(t, ns, "web"), roots)
	_, cfg := s.invite(t, one)
	must(sign(t, cfg, "vm"))(t)

	s.tell(t, "identity", "ban", "vm/web", "--reason", "host web-3 was stolen").does(t, "Banned spiffe://cluster.local/ns/vm/sa/web: ")
	s.tell(t, "identity", "ban", ns+"/web").does(t, "Banned spiffe://cluster.local/ns/"+ns+"/sa/web: ")
	const soon = 10 * time.Second
	for _, p := range []*process{one, other} {
		cfg.Address = p.api(nil).Address
		within(t, soon, func() error {
			_, err := sign(t, cfg, "vm")
			return refusal(err, caclient.Refused, "is banned (host web-3 was stolen)")
		})
	}
	s.tell(t, "identity", "ban", "spiffe://cluster.local/ns/vm/sa/web").does(t, "has been banned since", "(host web-3 was stolen): nothing is changed.")
	if a := s.tell(t, "identity", "list").does(t); !strings.Contains(a.stdout, "host web-3 was stolen") || !strings.Contains(a.stdout, "/ns/"+ns+"/sa/web") {
		t.Errorf("list:\n%s", a.stdout)
	}
	if err := plane.Client.CoreV1().Secrets(ns).Delete(t.Context(), secret.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error { // by the one that leads
		if said := "/ns/" + ns + "/sa/web is banned"; !strings.Contains(one.read(t, "log")+other.read(t, "log"), said) {
			return fmt.Errorf("no citadel says %q", said)
		}
		return nil
	})
	if _, err := plane.Client.CoreV1().Secrets(ns).Get(t.Context(), secret.Name, metav1.GetOptions{}); err == nil {
		t.Error("who is banned gets a Secret")
	}

	s.tell(t, "identity", "unban", "vm/web").does(t, "Lifted the ban of spiffe://cluster.local/ns/vm/sa/web since ", "(host web-3 was stolen)")
	s.tell(t, "identity", "unban", ns+"/web").does(t)
	for _, p := range []*process{one, other} {
		cfg.Address = p.api(nil).Address
		within(t, soon, func() error { _, err := sign(t, cfg, "vm"); return err })
	}
	within(t, patience, func() error {
		_, err := plane.Client.CoreV1().Secrets(ns).Get(t.Context(), secret.Name, metav1.GetOptions{})
		return err
	})
	s.tell(t, "identity", "unban", "vm/web").does(t, "is not banned: nothing is changed.")
}

// TestBanOfACertificate stops who asks by it, and not its identity.
func TestBanOfACertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	p.serves(t)
	roots := s.roots(t)
	secret := right(t, makeAccount(t, ns, "web"), roots)
	cfg := p.api(roots)
	cfg.Certificate = pairOf(t, secret)
	must(sign(t, cfg, "vm"))(t)
	serial := fmt.Sprintf("%X", cfg.Certificate.Leaf.SerialNumber)
	var colons []string
	for octet := range slices.Chunk([]byte(serial), 2) {
		colons = append(colons, string(octet))
	}
	s.tell(t, "identity", "ban", strings.Join(colons, ":"), "--reason", "lost").does(t, "Banned the certificate of serial number "+strings.ToLower(serial)+": ")
	within(t, 10*time.Second, func() error {
		_, err := sign(t, cfg, "vm")
		return refusal(err, caclient.Refused, "the certificate of serial number "+strings.ToLower(serial)+" is banned (lost)")
	})
	if err := plane.Client.CoreV1().Secrets(ns).Delete(t.Context(), secret.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error { // another, for its identity is not banned
		next, err := plane.Client.CoreV1().Secrets(ns).Get(t.Context(), secret.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		cfg.Certificate = pairOf(t, next)
		_, err = sign(t, cfg, "vm")
		return err
	})
	s.tell(t, "identity", "unban", serial).does(t, "Lifted the ban of "+strings.ToLower(serial))
}

// pairOf is the certificate and key of a Secret.
func pairOf(t *testing.T, secret *corev1.Secret) *tls.Certificate {
	t.Helper()
	pair := must(tls.X509KeyPair(secret.Data[chainKey], secret.Data[keyKey]))(t)
	return &pair
}

// TestRightsOfWhoBans: the API server's own refusals name what is missing.
func TestRightsOfWhoBans(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	s.bareAccount(t, "nobody")
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	if err := plane.ServiceAccount(t.Context(), s.storage, "nobody", kubeconfig); err != nil {
		t.Fatal(err)
	}
	roots := writeFile(t, "roots.pem", catest.Root(t, time.Now(), catest.Spec{Name: "root"}).PEM())
	for want, args := range map[string][]string{
		"you may not: get configmaps " + kube.BansConfigMap + " in " + s.storage + ", update configmaps " + kube.BansConfigMap + " in " + s.storage + ", create configmaps in " + s.storage: {"identity", "ban", "spiffe://cluster.local/ns/vm/sa/web"},
		`you need verb "create" on resource "secrets"`: {"token", "create", "-n", "vm", "--service-account", "web", "--address", "a:1", "--root-cert", roots},
		`you need verb "list" on resource "secrets"`:   {"token", "list"},
		`you need verb "delete" on resource "secrets"`: {"token", "revoke", "0123456789"},
		`you need verb "get" on resource "configmaps"`: {"identity", "list"},
	} {
		cmd := exec.CommandContext(t.Context(), citadelctl, append(args, "--kubeconfig", kubeconfig, "--citadel-storage-namespace", s.storage)...)
		out, err := cmd.CombinedOutput()
		if exit, ok := errors.AsType[*exec.ExitError](err); !ok || exit.ExitCode() != 4 || !strings.Contains(string(out), want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
