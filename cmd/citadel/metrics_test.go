package main

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/caserver"
	"citadel/ca/catest"
	"citadel/secretcontroller"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// scrape returns the values of all metrics that have no more than constant
// labels, and the names of all, as /metrics shows them.
func scrape(t *testing.T, m *metrics) (values map[string]float64, names map[string]bool) {
	t.Helper()
	families, err := m.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values, names = map[string]float64{}, map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
		for _, metric := range f.GetMetric() {
			key := f.GetName()
			for _, l := range metric.GetLabel() {
				key += "," + l.GetName() + "=" + l.GetValue()
			}
			values[key] = metric.GetGauge().GetValue() + metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return values, names
}

// TestMetricNames: dashboards and alerts ask for them (compatibility 7).
func TestMetricNames(t *testing.T) {
	m := newMetrics()
	m.watchAuthority(catest.Authority(t, time.Now(), ca.Config{}))
	m.registry.MustRegister(statusMetrics{func() secretcontroller.Status {
		return secretcontroller.Status{Leading: true, SoonestExpiry: time.Now(), SoonestRenewal: time.Now(), LastSuccess: time.Now()}
	}})
	m.observe(quiet(), secretcontroller.Observation{Object: "Secret", Err: &ca.Error{Class: ca.CSRError}})
	m.api.observe(caserver.Call{Tried: []authn.Outcome{{Kind: "client certificate"}}})
	_, names := scrape(t, m)
	for _, want := range []string{
		// the ancestor's
		"citadel_secret_controller_svc_acc_created_cert_count", "citadel_secret_controller_svc_acc_deleted_cert_count",
		"citadel_secret_controller_secret_deleted_cert_count", "citadel_secret_controller_csr_err_count", "citadel_secret_controller_csr_sign_err_count",
		"citadel_server_root_cert_expiry_timestamp", "citadel_server_root_cert_expiry_seconds",
		"citadel_server_cert_chain_expiry_timestamp", "citadel_server_cert_chain_expiry_seconds", "istio_build",
		"citadel_server_csr_count", "citadel_server_authentication_failure_count", "citadel_server_csr_parsing_err_count",
		"citadel_server_id_extraction_err_count", "citadel_server_csr_sign_err_count", "citadel_server_success_cert_issuance_count",
		// what it lacked
		"citadel_secret_controller_refreshes_total", "citadel_secret_controller_write_seconds", "citadel_leader",
		"citadel_secret_controller_secrets", "citadel_secret_controller_secrets_in_error", "citadel_secret_controller_queue_depth",
		"citadel_secret_controller_contended_secrets",
		"citadel_secret_controller_soonest_expiry_timestamp", "citadel_secret_controller_soonest_renewal_timestamp",
		"citadel_secret_controller_last_success_timestamp",
		"citadel_server_issuance_seconds", "citadel_server_rate_limited_count", "citadel_server_refused_connections_total", "citadel_server_authentications_total",
	} {
		if !names[want] {
			t.Errorf("%s is missing", want)
		}
		delete(names, want)
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is not in this list: a name once shown is fixed", name)
		}
	}
}

func TestAuthorityMetrics(t *testing.T) {
	now := time.Now()
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	issuing := root.Intermediate(t, now, catest.Spec{Name: "issuing", Edit: endsIn(now, 48*time.Hour)})
	early := catest.Root(t, now, catest.Spec{Name: "early", Edit: endsIn(now, 24*time.Hour)})
	signer, err := issuing.Signer(t, now).WithRoots(early.Pieces(t).Roots)
	if err != nil {
		t.Fatal(err)
	}
	m := newMetrics()
	m.watchAuthority(catest.Authority(t, now, ca.Config{Signer: signer}))
	values, _ := scrape(t, m)
	for name, want := range map[string]time.Duration{"root_cert": 24 * time.Hour, "cert_chain": 48 * time.Hour} {
		if got := values["citadel_server_"+name+"_expiry_timestamp"]; got != float64(now.Add(want).Unix()) {
			t.Errorf("%s ends at %.0f, want the first end of all, %d", name, got, now.Add(want).Unix())
		}
		if got := values["citadel_server_"+name+"_expiry_seconds"]; got > want.Seconds() || got < want.Seconds()-60 {
			t.Errorf("%s ends in %.0f s, want %.0f s", name, got, want.Seconds())
		}
	}
}

func TestControllerMetrics(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_500)
	status := secretcontroller.Status{}
	m := newMetrics()
	m.registry.MustRegister(statusMetrics{func() secretcontroller.Status { return status }})
	const prefix = "citadel_secret_controller_"
	check := func(name string, want float64) {
		t.Helper()
		if values, _ := scrape(t, m); values[name] != want {
			t.Errorf("%s is %v, want %v", name, values[name], want)
		}
	}
	check("citadel_leader", 0)
	absent := func(names ...string) {
		t.Helper()
		_, shown := scrape(t, m)
		for _, name := range names {
			if shown[prefix+name] {
				t.Errorf("%s%s is shown with nothing to say", prefix, name)
			}
		}
	}
	absent("secrets", "secrets_in_error", "contended_secrets", "queue_depth", "soonest_expiry_timestamp", "soonest_renewal_timestamp", "last_success_timestamp")
	status = secretcontroller.Status{Leading: true}
	check(prefix+"secrets", 0)
	absent("soonest_expiry_timestamp", "soonest_renewal_timestamp", "last_success_timestamp")
	status = secretcontroller.Status{Leading: true, Secrets: 3, InError: 2, Contended: 4, QueueDepth: 5, SoonestExpiry: at, SoonestRenewal: at.Add(-time.Second), LastSuccess: at}
	for name, want := range map[string]float64{
		"citadel_leader": 1, prefix + "secrets": 3, prefix + "secrets_in_error": 2, prefix + "contended_secrets": 4, prefix + "queue_depth": 5, prefix + "soonest_expiry_timestamp": 1_700_000_000.5,
		prefix + "soonest_renewal_timestamp": 1_699_999_999.5, prefix + "last_success_timestamp": 1_700_000_000.5,
	} {
		check(name, want)
	}
}

// TestLeaderIsShownFromTheStart: while there is no authority and no controller
// nobody leads, and an alert on a sum has something to add up.
func TestLeaderIsShownFromTheStart(t *testing.T) {
	values, names := scrape(t, newProcess(&config{options: &options{}}, quiet(), &auditStream{}).metrics)
	if !names["citadel_leader"] || values["citadel_leader"] != 0 || names["citadel_secret_controller_secrets"] {
		t.Errorf("shown: %v, as %v", names["citadel_leader"], values["citadel_leader"])
	}
}

// TestNoLeaderWhereNobodyWrites: an alert on the sum of leaders must not fire at
// sites that have no Secrets to write.
func TestNoLeaderWhereNobodyWrites(t *testing.T) {
	if _, names := scrape(t, newProcess(&config{options: &options{serverOnly: true}}, quiet(), &auditStream{}).metrics); names["citadel_leader"] {
		t.Error("citadel_leader is shown with --server-only")
	}
}

// TestObservedInTheLog: a quarrel is a warning that names the Secret, and times
// are for people.
func TestObservedInTheLog(t *testing.T) {
	var out strings.Builder
	log, m := slog.New(slog.NewJSONHandler(&out, nil)), newMetrics()
	m.observe(log, secretcontroller.Observation{Object: "Secret", Name: "web/istio.api", Action: secretcontroller.Paused, Detail: "a second citadel?"})
	m.observe(log, secretcontroller.Observation{Object: "Secret", Name: "web/istio.api", Action: secretcontroller.Created, Took: 1234567 * time.Nanosecond})
	for _, want := range []string{`"level":"WARN"`, `"name":"web/istio.api"`, `"detail":"a second citadel?"`, `"took":"1.235ms"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, out.String())
		}
	}
}

// TestAuditMetric: it rises with the first record that is lost, and falls when
// the stream can be written again.
func TestAuditMetric(t *testing.T) {
	out := &brokenWriter{err: errors.New("disk full")}
	audit := &auditStream{out: out}
	m := newProcess(&config{options: &options{}}, quiet(), audit).metrics
	check := func(want float64) {
		t.Helper()
		if values, names := scrape(t, m); !names["citadel_audit_failing"] || values["citadel_audit_failing"] != want {
			t.Errorf("citadel_audit_failing is %v, want %v", values["citadel_audit_failing"], want)
		}
	}
	check(0)
	if audit.write(ca.AuditRecord{}) == nil {
		t.Fatal("the record was written")
	}
	check(1)
	out.err = nil
	check(0)
}

// TestBansMetric: it rises when the bans cannot be read, long before nothing is
// issued any more, and falls when they are.
func TestBansMetric(t *testing.T) {
	now := time.Now()
	authority := catest.Authority(t, now, ca.Config{Signer: catest.Root(t, now, catest.Spec{Name: "root"}).Signer(t, now)})
	p := newProcess(&config{options: &options{}}, quiet(), &auditStream{})
	var fails error
	s := stores{bansHold: time.Hour, bans: func(context.Context) (ca.BanList, error) { return nil, fails }}
	for _, c := range []struct {
		err  error
		want float64
	}{{nil, 0}, {errors.New("damaged"), 1}, {nil, 0}} {
		fails = c.err
		_ = p.readBans(t.Context(), s, authority)
		if values, names := scrape(t, p.metrics); !names["citadel_bans_failing"] || values["citadel_bans_failing"] != c.want {
			t.Errorf("%v: citadel_bans_failing is %v, want %v", c.err, values["citadel_bans_failing"], c.want)
		}
	}
}

// brokenWriter fails for as long as it has an error.
type brokenWriter struct{ err error }

func (w *brokenWriter) Write(p []byte) (int, error) { return len(p), w.err }

// TestObserve: what was done is counted once, where it belongs.
func TestObserve(t *testing.T) {
	const (
		created, deleted, again = "citadel_secret_controller_svc_acc_created_cert_count", "citadel_secret_controller_svc_acc_deleted_cert_count", "citadel_secret_controller_secret_deleted_cert_count"
		csr, sign, writes, took = "citadel_secret_controller_csr_err_count", "citadel_secret_controller_csr_sign_err_count,error=", "citadel_secret_controller_refreshes_total,object=", "citadel_secret_controller_write_seconds"
	)
	err := &ca.Error{Class: ca.CertGenError, Reason: "signer expired"}
	for name, c := range map[string]struct {
		o    secretcontroller.Observation
		want []string
	}{
		"created":          {secretcontroller.Observation{Object: "Secret", Action: secretcontroller.Created, Reason: secretcontroller.Missing}, []string{created, took, writes + "Secret,outcome=created,reason=missing"}},
		"made again":       {secretcontroller.Observation{Object: "Secret", Action: secretcontroller.Created, Reason: secretcontroller.Vanished}, []string{again, took, writes + "Secret,outcome=created,reason=deleted"}},
		"rotated":          {secretcontroller.Observation{Object: "Secret", Action: secretcontroller.Replaced, Reason: secretcontroller.Due}, []string{took, writes + "Secret,outcome=replaced,reason=rotation"}},
		"account deleted":  {secretcontroller.Observation{Object: "Secret", Action: secretcontroller.Deleted, Reason: "service account gone"}, []string{deleted, took, writes + "Secret,outcome=deleted,reason=service account gone"}},
		"roots created":    {secretcontroller.Observation{Object: "ConfigMap", Action: secretcontroller.Created, Reason: secretcontroller.Missing}, []string{took, writes + "ConfigMap,outcome=created,reason=missing"}},
		"write failed":     {secretcontroller.Observation{Object: "Secret", Action: secretcontroller.Created, Reason: secretcontroller.Missing, Err: errors.New("x")}, []string{writes + "Secret,outcome=error,reason=missing"}},
		"signature failed": {secretcontroller.Observation{Object: "Secret", Reason: secretcontroller.Due, Err: err}, []string{sign + "CERT_GEN_ERROR", writes + "Secret,outcome=error,reason=rotation"}},
		"contended":        {secretcontroller.Observation{Object: "Secret", Action: secretcontroller.Paused, Reason: secretcontroller.BadRoots}, nil},
		"request refused":  {secretcontroller.Observation{Object: "Secret", Reason: secretcontroller.Due, Err: errors.Join(&ca.Error{Class: ca.CSRError})}, []string{csr, sign + "CSR_ERROR", writes + "Secret,outcome=error,reason=rotation"}},
	} {
		m := newMetrics()
		m.observe(quiet(), c.o)
		values, _ := scrape(t, m)
		var got []string
		for key, value := range values {
			if strings.HasPrefix(key, "citadel_") && value != 0 {
				got = append(got, key)
			}
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: counted %q, want %q", name, got, c.want)
		}
	}
}
