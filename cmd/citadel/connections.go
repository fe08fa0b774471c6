package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"citadel/cmd/internal/daemon"
)

// Connections cost whoever opens them nothing, and need no proof. They must not
// take the file descriptors by which bans, tokens and audit log are read and
// written, or the API server is reached.
const (
	// reservedFiles are for all that is no connection from outside.
	reservedFiles = 256
	// mostMonitoring and mostDefault bound the defaults: connections take memory
	// too.
	mostMonitoring = 1024
	mostDefault    = 16384
	// leastEach is what one address may have by default, where there is room: a host
	// needs two.
	leastEach = 16
	// refusedEvery is how often refused connections are told of.
	refusedEvery = time.Minute
)

// connectionLimits are how many connections the monitoring port and the CSR API
// may have at most in a process that may open a number of files.
func connectionLimits(files uint64) (monitoring, api int) {
	room := max(files/2, 2)
	if files >= 2*reservedFiles {
		room = files - reservedFiles
	}
	room = min(room, 1<<30) // where there is no limit
	monitoring = int(max(min(room/8, mostMonitoring), 1))
	return monitoring, int(room) - monitoring
}

func (o *options) connectionFlags(f *pflag.FlagSet) {
	f.IntVar(&o.connections, "grpc-max-connections", 0, "connections open at once; more are closed as they come; 0: up to 16384, as the process's limit of open files leaves room for")
	f.IntVar(&o.eachConnections, "grpc-max-connections-per-address", 0, "connections that one address, or one /64 of IPv6, may have open, as all hosts behind a NAT, proxy or load balancer have together; 0: a quarter of --grpc-max-connections")
}

func (c *config) checkConnections() {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		limit.Cur = 1024 // what Linux gives where nobody says otherwise
	}
	monitoring, most := connectionLimits(limit.Cur)
	c.monitorConnections = monitoring
	switch {
	case c.connections < 0:
		c.flags.Problem("grpc-max-connections", "%d is negative", c.connections)
	case c.connections > most:
		c.flags.Problem("grpc-max-connections", "%d is above %d, which is what a process that may open %d files has room for: raise that (LimitNOFILE= of the unit, ulimit -n), or lower the flag", c.connections, most, limit.Cur)
	case c.connections == 0:
		c.connections = min(most, mostDefault)
	}
	switch {
	case c.eachConnections < 0:
		c.flags.Problem("grpc-max-connections-per-address", "%d is negative", c.eachConnections)
	case c.eachConnections == 0:
		c.eachConnections = min(max(c.connections/4, leastEach), c.connections)
	}
}

// listenAPI listens on --grpc-port, for as many connections as there may be.
func (p *process) listenAPI() (net.Listener, error) {
	listener, err := net.Listen("tcp", net.JoinHostPort("", strconv.Itoa(p.cfg.grpcPort)))
	if err != nil {
		return nil, fmt.Errorf("--grpc-port: %w", err)
	}
	return daemon.LimitConnections(listener, p.cfg.connections, func() {
		p.metrics.api.refused.WithLabelValues("all").Inc()
		p.refused.Add(1)
	}), nil
}

// refuseOrigin hears of a connection that was one too many of its address.
func (p *process) refuseOrigin(origin netip.Prefix) {
	p.metrics.api.refused.WithLabelValues("address").Inc()
	p.refusedEach.Add(1)
	p.refusedLast.Store(&origin)
}

// tellRefused warns of the connections that were refused since it last did.
func (p *process) tellRefused() {
	if n := p.refused.Swap(0); n > 0 {
		p.log.Warn("connections to the CSR API are refused: as many as --grpc-max-connections are open", "refused", n, "most", p.cfg.connections)
	}
	if n := p.refusedEach.Swap(0); n > 0 {
		p.log.Warn("connections to the CSR API are refused: an address has as many open as --grpc-max-connections-per-address",
			"refused", n, "last", p.refusedLast.Load().String(), "most", p.cfg.eachConnections)
	}
}
