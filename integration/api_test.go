package integration

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/ca/authn"
	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/ca/trust"
)

// api is how to reach the CSR API of a process.
func (p *process) api(roots []*x509.Certificate) caclient.Config {
	return caclient.Config{Address: fmt.Sprintf("127.0.0.1:%d", p.APIPort), Roots: roots}
}

// sign asks once, for a key of that name.
func sign(t *testing.T, cfg caclient.Config, key string) (caclient.Issued, error) {
	t.Helper()
	client := must(caclient.New(cfg))(t)
	defer client.Close()
	return client.Sign(t.Context(), catest.CSR(t, catest.Key(t, trust.ECDSAP256, key)), time.Hour)
}

// serves waits until the CSR API does.
func (p *process) serves(t *testing.T) {
	t.Helper()
	within(t, patience, func() error {
		conn, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.APIPort))
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// TestSecretRenewsItself: what a Secret holds is proof enough for the CSR API,
// which is how the ancestors' hosts began.
func TestSecretRenewsItself(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t)
	sa := makeAccount(t, ns, "web")
	roots := s.roots(t)
	secret := right(t, sa, roots)
	p.serves(t)
	cfg := p.api(roots)
	pair := must(tls.X509KeyPair(secret.Data[chainKey], secret.Data[keyKey]))(t)
	cfg.Certificate = &pair
	issued := must(sign(t, cfg, "vm"))(t)
	if id := issued.Chain[0].URIs[0].String(); id != fmt.Sprintf("spiffe://%s/ns/%s/sa/web", trustDomain, ns) || !trust.SameRoots(issued.Roots, roots) {
		t.Errorf("issued for %s", id)
	}
	if audit := string(must(os.ReadFile(p.path("audit")))(t)); !strings.Contains(audit, `"method":"client certificate","evidence":"serial `) {
		t.Error("the audit records do not say who asked")
	}
	page := p.answers(t, "/metrics", 200)
	for _, want := range []string{"citadel_server_success_cert_issuance_count 1", `citadel_server_authentications_total{kind="client certificate",outcome="ok"} 1`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="CreateCertificate"`} {
		if !strings.Contains(page, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

// joinToken stores a token of one use, made at now for an hour, and returns its
// Secret's name.
func (s *site) joinToken(t *testing.T, now time.Time) (secret, bearer string) {
	t.Helper()
	token, bearer, err := authn.NewJoinToken(now, "vm", "web", time.Hour, 1)
	store := kube.JoinTokens{Client: plane.Client, Namespace: s.storage}
	if err = errors.Join(err, store.Create(t.Context(), token)); err != nil {
		t.Fatal(err)
	}
	return kube.JoinTokenPrefix + token.ID, bearer
}

// TestKubernetesTokenIsProof, until its service account is gone.
func TestKubernetesTokenIsProof(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t, "--token-review-ttl", "0")
	roots := s.roots(t)
	sa := makeAccount(t, ns, "sleep")
	cfg := p.api(roots)
	cfg.Token = s.kubernetesToken(t, sa)
	p.serves(t)
	within(t, patience, func() error { // the API server's keys are on their way
		issued, err := sign(t, cfg, "proxy")
		if err == nil && issued.Chain[0].URIs[0].Path != "/ns/"+ns+"/sa/sleep" {
			t.Errorf("issued for %s", issued.Chain[0].URIs[0])
		}
		return err
	})
	if err := plane.Client.CoreV1().ServiceAccounts(ns).Delete(t.Context(), sa.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error { // the API server itself remembers for ten seconds
		_, err := sign(t, cfg, "proxy")
		if e, ok := errors.AsType[*caclient.Error](err); !ok || e.Kind != caclient.NotProven {
			return fmt.Errorf("its service account is gone: %v", err)
		}
		return nil
	})
}

// kubernetesToken is a token of a service account for citadel.
func (s *site) kubernetesToken(t *testing.T, sa *corev1.ServiceAccount) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{"istio-ca"}}}
	return must(plane.Client.CoreV1().ServiceAccounts(sa.Namespace).CreateToken(t.Context(), sa.Name, request, metav1.CreateOptions{}))(t).Status.Token
}

// TestJoinOnceOnTwoReplicas: negative test 1, and what a ban stops.
func TestJoinOnceOnTwoReplicas(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	one := s.start(t)
	other := s.launch(t, launch{account: s.newAccount(t, "other")})
	other.ready(t)
	roots := s.roots(t)
	one.serves(t)
	other.serves(t)
	stored, bearer := s.joinToken(t, time.Now())
	const joins = 12
	won := make(chan string, joins)
	for i := range joins {
		cfg := []*process{one, other}[i%2].api(nil)
		cfg.Fingerprints, cfg.Token = []string{caclient.Fingerprint(roots[0])}, bearer
		key := fmt.Sprint("join ", i)
		catest.Key(t, trust.ECDSAP256, key)
		go func() {
			issued, err := sign(t, cfg, key)
			switch {
			case err == nil && issued.Chain[0].URIs[0].Path == "/ns/vm/sa/web":
				won <- key
			case err != nil && strings.Contains(err.Error(), "has been used (1 of 1)"):
				won <- ""
			default:
				won <- "?"
				t.Errorf("join %s: %v", key, err)
			}
		}()
	}
	winners := []string{}
	for range joins {
		if key := <-won; key != "" {
			winners = append(winners, key)
		}
	}
	if len(winners) != 1 {
		t.Fatalf("%d joined by one token", len(winners))
	}
	again := other.api(roots)
	again.Token = bearer
	if _, err := sign(t, again, winners[0]); err != nil {
		t.Errorf("the winner's answer was lost, and it asked again: %v", err)
	}
	id := fmt.Sprintf("spiffe://%s/ns/vm/sa/web", trustDomain)
	if err := kube.EditBans(t.Context(), plane.Client, s.storage, func(l kube.BanList) error { l[id] = kube.Ban{Reason: "stolen", Since: time.Now()}; return nil }); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		_, err := sign(t, again, winners[0])
		if e, ok := errors.AsType[*caclient.Error](err); !ok || e.Kind != caclient.Refused || !strings.Contains(e.Reason, "is banned (stolen)") {
			return fmt.Errorf("banned: %v", err)
		}
		return nil
	})
	if secret := must(plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), stored, metav1.GetOptions{}))(t); strings.Contains(string(secret.Data["token.json"]), bearer) {
		t.Error("the Secret holds the secret")
	}
}

// TestServingCertificate: what any TLS client sees, and old clients with it.
func TestServingCertificate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start(t, "--grpc-host-identities", "istio-ca,istio-citadel,192.0.2.7")
	roots := s.roots(t)
	p.serves(t)
	file := p.path("root.pem")
	if err := os.WriteFile(file, trust.MarshalCertificates(roots), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"istio-ca", "istio-citadel", "istio-citadel." + s.storage, "istio-citadel." + s.storage + ".svc", "istio-citadel." + s.storage + ".svc.cluster.local"} {
		out, err := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", p.APIPort), "-servername", name,
			"-verify_hostname", name, "-CAfile", file, "-verify_return_error", "-x509_strict", "-alpn", "h2").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "Verify return code: 0 (ok)") || !strings.Contains(string(out), "ALPN protocol: h2") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
	out, err := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", fmt.Sprintf("127.0.0.1:%d", p.APIPort), "-verify_ip", "192.0.2.7", "-CAfile", file, "-verify_return_error").CombinedOutput()
	if err != nil {
		t.Errorf("by address: %v\n%s", err, out)
	}
}
