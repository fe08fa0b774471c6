package main

import (
	"net"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"citadel/ca/policy"
	"citadel/nodeagent/enforce"
)

// connectionCounts are the numbers of connections, for /metrics and status.
type connectionCounts struct {
	policy      func() *policy.Snapshot
	connections *prometheus.CounterVec
	bytes       *prometheus.CounterVec
	handshakes  *prometheus.CounterVec
	took        *prometheus.HistogramVec
	checks      *prometheus.CounterVec

	inbound, outbound counting

	mu    sync.RWMutex
	known map[string]bool // guarded by mu: services that are labels
}

type counting struct{ ended, refused, checks atomic.Int64 }

// countsOf is what became of the connections of one direction.
type countsOf struct {
	Ended        int64 `json:"ended"` // that had been carried
	Refused      int64 `json:"refused"`
	HealthChecks int64 `json:"healthChecks,omitempty"`
}

func newConnectionCounts(now func() *policy.Snapshot) *connectionCounts {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	return &connectionCounts{
		policy:      now,
		connections: counter("citadel_agent_connections_total", "Connections that have ended, or were refused: reason is empty for those that ended well.", "direction", "service", "mode", "way", "reason"),
		bytes:       counter("citadel_agent_connection_bytes_total", "Bytes of connections that have ended: received from who came, and sent to it.", "direction", "service", "mode", "flow", "reason"),
		handshakes:  counter("citadel_agent_handshakes_total", "TLS handshakes: result is ok, or the reason for which one failed.", "direction", "result"),
		checks:      counter("citadel_agent_health_checks_total", "Health checks without a certificate: reason is empty for those that were answered.", "reason"),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "citadel_agent_handshake_seconds", Help: "How long TLS handshakes took that succeeded.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"direction"}),
		known: map[string]bool{},
	}
}

func (c *connectionCounts) register(to prometheus.Registerer, open func() int) {
	to.MustRegister(c.connections, c.bytes, c.handshakes, c.checks, c.took,
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "citadel_agent_connections_open", Help: "Connections that are being served."}, func() float64 { return float64(open()) }))
}

// observe counts a connection, and returns the label of its service.
func (c *connectionCounts) observe(e enforce.Event) string {
	service, direction := c.label(e.Service), string(e.Direction)
	c.connections.WithLabelValues(direction, service, e.Mode, string(e.Way), string(e.Reason)).Inc()
	if e.In > 0 {
		c.bytes.WithLabelValues(direction, service, e.Mode, "in", string(e.Reason)).Add(float64(e.In))
	}
	if e.Out > 0 {
		c.bytes.WithLabelValues(direction, service, e.Mode, "out", string(e.Reason)).Add(float64(e.Out))
	}
	if e.Handshake > 0 {
		result := string(e.Reason)
		if e.Way != enforce.WayNone && e.Reason != enforce.ServerRefusedTLS {
			result = "ok"
			c.took.WithLabelValues(direction).Observe(e.Handshake.Seconds())
		}
		c.handshakes.WithLabelValues(direction, result).Inc()
	}
	n := c.counting(e.Direction)
	switch {
	case e.Way == enforce.WayHealth:
		n.checks.Add(1)
		c.checks.WithLabelValues(string(e.Reason)).Inc()
	case refused(&e):
		n.refused.Add(1)
	case e.Way != enforce.WayNone:
		n.ended.Add(1)
	}
	return service
}

func (c *connectionCounts) counting(d enforce.Direction) *counting {
	if d == enforce.Inbound {
		return &c.inbound
	}
	return &c.outbound
}

func (c *connectionCounts) of(d enforce.Direction) countsOf {
	n := c.counting(d)
	return countsOf{n.ended.Load(), n.refused.Load(), n.checks.Load()}
}

// What service is called in metrics that has no name of its own there: programs
// may call any number of names and addresses.
const (
	unknownService = "unknown" // to policy
	otherService   = "other"   // after mostServices
	mostServices   = 2000
)

// label is what a service is called in metrics.
func (c *connectionCounts) label(service string) string {
	c.mu.RLock()
	known := c.known[service]
	c.mu.RUnlock()
	if known {
		return service
	}
	if !declared(c.policy(), service) {
		return unknownService
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= mostServices && !c.known[service] {
		return otherService
	}
	c.known[service] = true
	return service
}

// declared tells whether policy knows HOST:PORT.
func declared(s *policy.Snapshot, service string) bool {
	host, portText, err := net.SplitHostPort(service)
	port, portErr := strconv.ParseUint(portText, 10, 16)
	if s == nil || err != nil || portErr != nil {
		return false
	}
	_, has := s.Resolve(policy.Query{Server: policy.Server{Host: host, Port: int32(port)}}).Declares()
	return has
}
