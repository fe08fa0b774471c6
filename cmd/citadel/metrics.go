package main

import (
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"citadel/ca"
	"citadel/cmd/internal/daemon"
	"citadel/secretcontroller"
)

// metrics are what /metrics shows of the work done. The ancestor's names are
// kept where the thing exists.
type metrics struct {
	registry *prometheus.Registry
	api      *apiMetrics
	created  prometheus.Counter
	deleted  prometheus.Counter
	remade   prometheus.Counter
	csrErr   prometheus.Counter
	signErr  *prometheus.CounterVec
	writes   *prometheus.CounterVec
	took     prometheus.Histogram
}

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		created:  counter("citadel_secret_controller_svc_acc_created_cert_count", "Secrets made for service accounts that had none."),
		deleted:  counter("citadel_secret_controller_svc_acc_deleted_cert_count", "Secrets deleted because their service account was gone."),
		remade:   counter("citadel_secret_controller_secret_deleted_cert_count", "Secrets made again after somebody deleted them."),
		csrErr:   counter("citadel_secret_controller_csr_err_count", "Certificate requests of the controller that were refused."),
		signErr: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_secret_controller_csr_sign_err_count",
			Help: "Signatures that failed, by class of error."}, []string{"error"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_secret_controller_refreshes_total",
			Help: "Objects written or tried, by kind, outcome and why they were not right."}, []string{"object", "outcome", "reason"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "citadel_secret_controller_write_seconds",
			Help: "Time from finding an object not right to its being written.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 14)}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "istio_build", Help: "The build that runs.",
		ConstLabels: prometheus.Labels{"component": "citadel", "tag": daemon.BuildVersion().Version}})
	build.Set(1)
	for _, class := range []ca.Class{ca.CANotReady, ca.CSRError, ca.TTLError, ca.CertGenError} {
		m.signErr.WithLabelValues(string(class)) // there from the start, as zero: an alert on a rise needs it
	}
	m.registry.MustRegister(m.created, m.deleted, m.remade, m.csrErr, m.signErr, m.writes, m.took, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.api = newAPIMetrics(m.registry)
	return m
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
}

// gauge registers a number that is looked up when it is asked for.
func (m *metrics) gauge(name, help string, value func() float64) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value))
}

// watchAuthority shows how long root and signer have left.
func (m *metrics) watchAuthority(a *ca.Authority) {
	root := a.Signer().Roots()[0].NotAfter
	for _, cert := range a.Signer().Roots() {
		if cert.NotAfter.Before(root) {
			root = cert.NotAfter
		}
	}
	signer := a.Signer().NotAfter()
	stamp := func(t time.Time) func() float64 { return func() float64 { return float64(t.Unix()) } }
	left := func(t time.Time) func() float64 { return func() float64 { return time.Until(t).Seconds() } }
	m.gauge("citadel_server_root_cert_expiry_timestamp", "Unix time at which the first root of the bundle expires.", stamp(root))
	m.gauge("citadel_server_root_cert_expiry_seconds", "Seconds until the first root of the bundle expires.", left(root))
	m.gauge("citadel_server_cert_chain_expiry_timestamp", "Unix time at which the signer, or an issuer of it, expires.", stamp(signer))
	m.gauge("citadel_server_cert_chain_expiry_seconds", "Seconds until the signer, or an issuer of it, expires.", left(signer))
}

// statusMetrics shows the state of the work, taken once for each scrape. What
// there is nothing to say of is absent: a zero would read as a certificate that
// expired in 1970.
type statusMetrics struct {
	status func() secretcontroller.Status
}

var (
	descLeading = prometheus.NewDesc("citadel_leader", "1 while this replica writes.", nil, nil)
	descSecrets = prometheus.NewDesc("citadel_secret_controller_secrets", "Secrets under management.", nil, nil)
	descInError = prometheus.NewDesc("citadel_secret_controller_secrets_in_error", "Secrets that could not be brought right.", nil, nil)
	descContend = prometheus.NewDesc("citadel_secret_controller_contended_secrets", "Secrets that another writer keeps changing.", nil, nil)
	descQueue   = prometheus.NewDesc("citadel_secret_controller_queue_depth", "Objects that wait to be looked at.", nil, nil)
	descExpiry  = prometheus.NewDesc("citadel_secret_controller_soonest_expiry_timestamp",
		"Unix time at which the first certificate under management expires.", nil, nil)
	descRenewal = prometheus.NewDesc("citadel_secret_controller_soonest_renewal_timestamp",
		"Unix time at which the next certificate is due.", nil, nil)
	descSuccess = prometheus.NewDesc("citadel_secret_controller_last_success_timestamp",
		"Unix time at which a piece of work last ended well.", nil, nil)
)

// Describe is of prometheus.Collector.
func (s statusMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descLeading, descSecrets, descInError, descContend, descQueue, descExpiry, descRenewal, descSuccess} {
		out <- d
	}
}

// Collect is of prometheus.Collector.
func (s statusMetrics) Collect(out chan<- prometheus.Metric) {
	now := s.status()
	show := func(d *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value)
	}
	at := func(d *prometheus.Desc, t time.Time) {
		if !t.IsZero() {
			show(d, float64(t.UnixMilli())/1000)
		}
	}
	if !now.Leading {
		show(descLeading, 0)
		return
	}
	show(descLeading, 1)
	show(descSecrets, float64(now.Secrets))
	show(descInError, float64(now.InError))
	show(descContend, float64(now.Contended))
	show(descQueue, float64(now.QueueDepth))
	at(descExpiry, now.SoonestExpiry)
	at(descRenewal, now.SoonestRenewal)
	at(descSuccess, now.LastSuccess)
}

// observe counts and logs one piece of work.
func (m *metrics) observe(log *slog.Logger, o secretcontroller.Observation) {
	reason := string(o.Reason)
	if o.Err != nil {
		m.writes.WithLabelValues(o.Object, "error", reason).Inc()
		m.countError(o.Err)
		log.Error("object is not right", "object", o.Object, "name", o.Name, "action", o.Action, "reason", o.Reason, "detail", o.Detail, "err", o.Err)
		return
	}
	if o.Action == secretcontroller.Paused {
		log.Warn("somebody else writes what citadel keeps", "object", o.Object, "name", o.Name, "reason", o.Reason, "detail", o.Detail)
		return
	}
	m.writes.WithLabelValues(o.Object, string(o.Action), reason).Inc()
	m.took.Observe(o.Took.Seconds())
	switch {
	case o.Object != "Secret":
	case o.Action == secretcontroller.Deleted:
		m.deleted.Inc()
	case o.Reason == secretcontroller.Vanished:
		m.remade.Inc()
	case o.Action == secretcontroller.Created:
		m.created.Inc()
	}
	attrs := []any{"object", o.Object, "name", o.Name, "action", o.Action, "reason", o.Reason, "detail", o.Detail, "took", o.Took.Round(time.Microsecond).String()}
	if !o.NotAfter.IsZero() {
		attrs = append(attrs, "notAfter", o.NotAfter.UTC(), "renewAt", o.RenewAt.UTC())
	}
	log.Info("object written", attrs...)
}

func (m *metrics) countError(err error) {
	e, ok := errors.AsType[*ca.Error](err)
	if !ok {
		return
	}
	m.signErr.WithLabelValues(string(e.Class)).Inc()
	if e.Class == ca.CSRError {
		m.csrErr.Inc()
	}
}
