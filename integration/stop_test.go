package integration

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"citadel/integration/proxy"
)

// podGrace is terminationGracePeriodSeconds of deploy/deployment.yaml: who takes
// longer to stop is killed.
const podGrace = 10 * time.Second

func TestStopIsPromptAndGivesTheLeaseBack(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p := s.start(t)
	within(t, patience, func() error { return leads(t, p) })
	makeAccounts(t, s.namespace(t), "sa", 200)
	if took := p.stop(t); took > podGrace { // in the midst of its work; stop checks the exit code
		t.Errorf("it took %s, want at most %s", took, podGrace)
	}
	lease := must(plane.Client.CoordinationV1().Leases(s.storage).Get(t.Context(), "istio-citadel", metav1.GetOptions{}))(t)
	if holder := lease.Spec.HolderIdentity; holder != nil && *holder != "" {
		t.Errorf("%s still holds the lease", *holder)
	}
	if last := tail(p.read(t, "log"), 1); !strings.Contains(last, "citadel stopped") {
		t.Errorf("the last line of the log is %q", last)
	}
}

func TestStopDoesNotWaitForAnAPIServerThatHangs(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	middle := newProxy(t)
	middle.Server.StartTLS()
	p := s.launch(t, launch{account: s.account.via(t, middle)})
	p.ready(t)
	within(t, patience, func() error { return leads(t, p) })
	middle.Break(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { <-r.Context().Done() })
	makeAccounts(t, s.namespace(t), "sa", 20)
	if took := p.stop(t); took > podGrace {
		t.Errorf("it took %s, want at most %s", took, podGrace)
	}
}

func TestStopBeforeAnythingIsLoaded(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	middle := newProxy(t)
	middle.Break(proxy.Unreachable)
	middle.Server.StartTLS()
	p := s.launch(t, launch{account: s.account.via(t, middle)})
	p.says(t, "trying again")
	if took := p.stop(t); took > podGrace {
		t.Errorf("it took %s, want at most %s", took, podGrace)
	}
}

func TestMonitoringPortShowsTheAncestorsNames(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	sa := makeAccount(t, s.namespace(t), "sleep")
	p := s.start(t)
	right(t, sa, s.roots(t))
	page := p.answers(t, "/metrics", http.StatusOK)
	for _, name := range []string{
		"citadel_server_root_cert_expiry_timestamp", "citadel_server_root_cert_expiry_seconds",
		"citadel_server_cert_chain_expiry_timestamp", "citadel_server_cert_chain_expiry_seconds",
		"citadel_secret_controller_svc_acc_created_cert_count", "citadel_secret_controller_svc_acc_deleted_cert_count",
		"citadel_secret_controller_secret_deleted_cert_count", "citadel_secret_controller_csr_err_count",
		`istio_build{component="citadel"`,
		// What was missing.
		"citadel_secret_controller_secrets", "citadel_secret_controller_soonest_expiry_timestamp",
		"citadel_secret_controller_refreshes_total", "citadel_secret_controller_queue_depth",
		"citadel_secret_controller_last_success_timestamp", "citadel_leader",
	} {
		if !strings.Contains(page, "\n"+name) {
			t.Errorf("/metrics lacks %s", name)
		}
	}
	if got, want := p.metric(t, "citadel_server_root_cert_expiry_timestamp"), float64(s.roots(t)[0].NotAfter.Unix()); got != want {
		t.Errorf("the root ends at %v, the metric says %v", want, got)
	}
	if got := p.metric(t, "citadel_secret_controller_svc_acc_created_cert_count"); got != 2 { // sleep and default
		t.Errorf("the metric counts %v Secrets made, want 2", got)
	}
	var version struct{ Version, Go string }
	if err := json.Unmarshal([]byte(p.answers(t, "/version", http.StatusOK)), &version); err != nil || version.Version == "" || version.Go == "" {
		t.Errorf("/version says %+v: %v", version, err)
	}
}

// What leaves the process holds no key: logs, audit stream, Events, metrics.
func TestNoKeyLeavesButInItsSecret(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	ns := s.namespace(t)
	p := s.start(t, "--log-level", "debug", "--workload-cert-ttl", "6s")
	roots := s.roots(t)
	sa := makeAccount(t, ns, "sleep")
	first := right(t, sa, roots)
	// The content of a Secret is what an error might quote.
	second := first
	for _, mangle := range []func(data map[string][]byte){
		func(data map[string][]byte) { data[chainKey] = data[keyKey] },
		func(data map[string][]byte) { data[keyKey] = data[keyKey][:len(data[keyKey])-40] },
		func(data map[string][]byte) { data[keyKey] = append([]byte("x"), data[keyKey]...) },
	} {
		within(t, patience, func() error { // it is renewed meanwhile
			mangled := must(getSecret(t.Context(), ns, "sleep"))(t)
			mangle(mangled.Data)
			_, err := plane.Client.CoreV1().Secrets(ns).Update(t.Context(), mangled, metav1.UpdateOptions{})
			return err
		})
		second = right(t, sa, roots)
	}
	within(t, patience, func() error { return renewedSince(t, sa, second) })
	createSecret(t, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "istio.taken"}, Data: first.Data})
	taken := makeAccount(t, ns, "taken")
	within(t, patience, func() error { return eventOn(t, taken, "SecretNameTaken", "") })

	authority := must(plane.Client.CoreV1().Secrets(s.storage).Get(t.Context(), "istio-ca-secret", metav1.GetOptions{}))(t)
	third := must(getSecret(t.Context(), ns, "sleep"))(t)
	events := must(json.Marshal(must(plane.Client.EventsV1().Events(ns).List(t.Context(), metav1.ListOptions{}))(t)))(t)
	metrics := p.answers(t, "/metrics", http.StatusOK)
	p.stop(t)
	outputs := map[string]string{"log": p.read(t, "log"), "audit stream": p.read(t, "audit"), "Events": string(events), "metrics": metrics}
	if !strings.Contains(outputs["audit stream"], "/sa/sleep") || !strings.Contains(outputs["log"], "istio.sleep") {
		t.Error("the streams do not hold what they should")
	}
	for name, text := range outputs {
		for _, key := range [][]byte{authority.Data["ca-key.pem"], first.Data[keyKey], second.Data[keyKey], third.Data[keyKey]} {
			checkNoKey(t, name, text, key)
			for _, form := range bare(t, key) {
				if strings.Contains(text, form) {
					t.Errorf("%s holds a private key", name)
				}
			}
		}
	}
}

// bare are the ways in which the end of a key's bytes could be printed: that is
// where PKCS#8 and SEC 1 hold numbers and not names.
func bare(t *testing.T, key []byte) []string {
	t.Helper()
	block, _ := pem.Decode(key)
	if block == nil {
		t.Fatal("no PEM")
	}
	var out []string
	for cut := range 3 { // base64 depends on where it starts
		part := block.Bytes[36+cut : 36+cut+24] // of the private number
		out = append(out, base64.RawStdEncoding.EncodeToString(part), base64.RawURLEncoding.EncodeToString(part))
	}
	part := block.Bytes[36:60]
	return append(out, hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)), strings.Trim(fmt.Sprint(part), "[]"), string(part))
}
