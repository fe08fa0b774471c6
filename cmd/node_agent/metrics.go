package main

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"citadel/cmd/internal/daemon"
	"citadel/nodeagent"
	"citadel/nodeagent/policycache"
)

// metrics are what /metrics shows.
type metrics struct {
	registry *prometheus.Registry
	renewals *prometheus.CounterVec
	failures prometheus.Counter
}

func newMetrics(now func() status) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		renewals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_agent_renewals_total", Help: "Certificates that were had, by proof."}, []string{"by"}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{Name: "citadel_agent_failures_total", Help: "What failed: renewals, installs and reloads."}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_build", Help: "The build that runs.",
		ConstLabels: prometheus.Labels{"component": "citadel_agent", "tag": daemon.BuildVersion().Version}})
	build.Set(1)
	m.registry.MustRegister(m.renewals, m.failures, build, agentStatus{now},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) observe(e nodeagent.Event) {
	if e.By != "" {
		m.renewals.WithLabelValues(e.By).Inc()
	}
	if e.Err != nil {
		m.failures.Inc()
	}
}

// agentStatus shows the status of the moment. What there is nothing to say of
// is absent.
type agentStatus struct{ status func() status }

var (
	descLeft     = prometheus.NewDesc("cert_expiry_seconds", "Seconds until the certificate expires.", []string{"resource_name"}, nil)
	descExpiry   = prometheus.NewDesc("citadel_agent_certificate_expiry_timestamp", "Unix time at which the certificate expires.", nil, nil)
	descRenewAt  = prometheus.NewDesc("citadel_agent_next_try_timestamp", "Unix time at which the CA is asked next.", nil, nil)
	descLast     = prometheus.NewDesc("citadel_agent_last_renewal_timestamp", "Unix time of the last renewal.", nil, nil)
	descInARow   = prometheus.NewDesc("citadel_agent_failures_in_a_row", "Renewals that failed since the last that did not.", nil, nil)
	descReload   = prometheus.NewDesc("citadel_agent_reload_owed", "1 while programs have not been made to read the newest files.", nil, nil)
	descRoots    = prometheus.NewDesc("citadel_agent_roots", "Roots that are trusted.", nil, nil)
	descPolicy   = prometheus.NewDesc("citadel_agent_policy_known", "1 while there is an mTLS policy, 0 while there is none, which means STRICT; with where it is from.", []string{"source"}, nil)
	descServed   = prometheus.NewDesc("citadel_agent_policy_served", "0 where the CA serves no policy (citadel without --policy), else 1.", nil, nil)
	descVersion  = prometheus.NewDesc("citadel_agent_policy_info", "1, with the version of the policy in force, which is the CA's count, and its generation.", []string{"version", "generation"}, nil)
	descUpdated  = prometheus.NewDesc("citadel_agent_policy_updated_timestamp", "Unix time at which the CA last said something new of policy.", nil, nil)
	descHeard    = prometheus.NewDesc("citadel_agent_policy_heard_timestamp", "Unix time until which the policy is known to be the CA's.", nil, nil)
	descOfStatus = []*prometheus.Desc{descLeft, descExpiry, descRenewAt, descLast, descInARow, descReload, descRoots, descPolicy, descServed, descVersion, descUpdated, descHeard}
)

// Describe is of prometheus.Collector.
func (a agentStatus) Describe(out chan<- *prometheus.Desc) {
	for _, d := range descOfStatus {
		out <- d
	}
}

// Collect is of prometheus.Collector.
func (a agentStatus) Collect(out chan<- prometheus.Metric) {
	s := a.status()
	show := func(d *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	at := func(d *prometheus.Desc, t time.Time) {
		if !t.IsZero() {
			show(d, float64(t.Unix()))
		}
	}
	at(descExpiry, s.NotAfter)
	at(descRenewAt, s.NextTry)
	at(descLast, s.LastRenewal)
	if !s.NotAfter.IsZero() {
		show(descLeft, time.Until(s.NotAfter).Seconds(), "default")
		show(descRoots, float64(s.Roots))
	}
	show(descInARow, float64(s.Failures))
	owed := 0.0
	if s.ReloadOwed {
		owed = 1
	}
	show(descReload, owed)
	if s.Policy == nil {
		return
	}
	known := 1.0
	if s.Policy.Source == policycache.None {
		known = 0
	}
	show(descPolicy, known, string(s.Policy.Source))
	served := 1.0
	if s.Policy.NotServed {
		served = 0
	}
	show(descServed, served)
	if known == 1 {
		show(descVersion, 1, s.Policy.Version, s.Policy.Generation)
	}
	at(descUpdated, s.Policy.Updated)
	at(descHeard, s.Policy.Heard)
}
