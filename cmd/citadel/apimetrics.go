package main

import (
	"errors"

	grpcprom "github.com/grpc-ecosystem/go-grpc-middleware/providers/prometheus"
	"github.com/prometheus/client_golang/prometheus"

	"citadel/ca"
	"citadel/ca/caserver"
)

// apiMetrics are those of the CSR API, by the ancestor's names where the thing
// exists.
type apiMetrics struct {
	requests, issued, unauthenticated, badCSR, badID, limited prometheus.Counter

	refused *prometheus.CounterVec
	signErr *prometheus.CounterVec
	proofs  *prometheus.CounterVec
	took    prometheus.Histogram
	grpc    *grpcprom.ServerMetrics
}

func newAPIMetrics(registry *prometheus.Registry) *apiMetrics {
	m := &apiMetrics{
		requests:        counter("citadel_server_csr_count", "Requests for certificates that the CSR API received."),
		issued:          counter("citadel_server_success_cert_issuance_count", "Certificates that the CSR API issued."),
		unauthenticated: counter("citadel_server_authentication_failure_count", "Requests whose caller was not authenticated."),
		badCSR:          counter("citadel_server_csr_parsing_err_count", "Requests whose CSR was refused."),
		badID:           counter("citadel_server_id_extraction_err_count", "Requests whose caller may not have an identity here."),
		limited:         counter("citadel_server_rate_limited_count", "Requests turned away for asking too much."),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_server_refused_connections_total",
			Help: "Connections closed at once, because as many were open as the limit allows: of all (--grpc-max-connections) or of one address."}, []string{"limit"}),
		signErr: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_server_csr_sign_err_count",
			Help: "Requests that ended without a certificate, by class of error."}, []string{"error"}),
		proofs: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "citadel_server_authentications_total",
			Help: "Proofs of identity that callers gave, by kind and outcome."}, []string{"kind", "outcome"}),
		took: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "citadel_server_issuance_seconds",
			Help: "Time from a request's arrival to its certificate.", Buckets: prometheus.ExponentialBuckets(0.0001, 2, 16)}),
		grpc: grpcprom.NewServerMetrics(grpcprom.WithServerHandlingTimeHistogram()),
	}
	for _, limit := range []string{"all", "address"} {
		m.refused.WithLabelValues(limit)
	}
	for _, class := range []ca.Class{ca.CANotReady, ca.CSRError, ca.TTLError, ca.CertGenError} {
		m.signErr.WithLabelValues(string(class))
	}
	registry.MustRegister(m.requests, m.issued, m.unauthenticated, m.badCSR, m.badID, m.limited, m.refused, m.signErr, m.proofs, m.took, m.grpc)
	return m
}

func (m *apiMetrics) observe(c caserver.Call) {
	m.requests.Inc()
	for _, proof := range c.Tried {
		outcome := "ok"
		if proof.Err != nil {
			outcome = "failed"
		}
		m.proofs.WithLabelValues(proof.Kind, outcome).Inc()
	}
	if c.Err == nil {
		m.issued.Inc()
		m.took.Observe(c.Took.Seconds())
		return
	}
	if c.Limited {
		m.limited.Inc()
	}
	e, ok := errors.AsType[*ca.Error](c.Err)
	if !ok {
		return
	}
	switch e.Class {
	case ca.Unauthenticated:
		m.unauthenticated.Inc()
	case ca.Denied:
		m.badID.Inc()
	case ca.CSRError:
		m.badCSR.Inc()
		fallthrough
	default:
		m.signErr.WithLabelValues(string(e.Class)).Inc()
	}
}
