package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthgrpc "google.golang.org/grpc/health/grpc_health_v1"

	"citadel/ca/caclient"
)

const (
	// tellEvery is how often systemd is told how it goes, and tellSoon before the
	// unit has started.
	tellEvery = 10 * time.Second
	tellSoon  = 100 * time.Millisecond
	// answerLimit is how long the CSR API may take to answer this process itself,
	// on a machine that does much else.
	answerLimit = 20 * time.Second
)

// tellSystemd says how it goes until ctx ends. The unit has started when
// certificates can be signed and the CSR API answers (D-1).
func (p *process) tellSystemd(ctx context.Context) {
	if !p.notify.Heard() {
		return
	}
	defer p.notify.Stopping()
	for ctx.Err() == nil {
		wait := tellSoon
		if p.turn(ctx) {
			wait = p.notify.Every(tellEvery)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// turn goes the way of a request as far as one can without a certificate: to the
// audit log, and through the port, a handshake and the server. Only one that
// comes to an end feeds the watchdog (D-2); an end that says why nothing can be
// signed now does, for no restart mends that.
func (p *process) turn(ctx context.Context) (ready bool) {
	wrong := p.ready()
	if p.apiServed.Load() {
		if err := p.asksItself(ctx); err != nil {
			if ctx.Err() == nil {
				p.notify.Tell(fmt.Sprintf("the CSR API does not answer: %v", err), false)
			}
			return false
		}
	}
	p.notify.Beat()
	if wrong != nil {
		p.notify.Tell(fmt.Sprintf("nothing is signed: %v", wrong), false)
		return false
	}
	p.notify.Tell(fmt.Sprintf("CSR API on port %d for %s, signing certificate ends %s",
		p.cfg.grpcPort, p.cfg.td.Name(), p.authority.Load().Signer().NotAfter().UTC().Format(time.RFC3339)), true)
	return true
}

// asksItself has the CSR API's health service answer, by TLS on its port.
func (p *process) asksItself(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	// Who answers need not be proven: nothing is told, and nothing done by it.
	unproven := credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: caclient.DefaultServerName, InsecureSkipVerify: true})
	conn, err := grpc.NewClient("passthrough:///:"+strconv.Itoa(p.cfg.grpcPort), grpc.WithNoProxy(), grpc.WithTransportCredentials(unproven))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = healthgrpc.NewHealthClient(conn).Check(ctx, &healthgrpc.HealthCheckRequest{})
	return err
}
