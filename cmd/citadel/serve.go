package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"

	"citadel/ca"
	"citadel/ca/kube"
	"citadel/ca/statedir"
	"citadel/cmd/internal/daemon"
	"citadel/secretcontroller"
)

const (
	// stopLimit is how long stopping may take: giving the lease back waits for
	// the API server.
	stopLimit = 4500 * time.Millisecond
	// gcPercent trades a little processor time for a smaller peak: most of the
	// heap is the cache, which only grows with the cluster. Ballast that is never
	// touched, and so takes no memory, keeps the collector from running all the
	// time while the heap is small.
	gcPercent = 40
	gcBallast = 48 << 20
	// stuckAfter is how old the controller's last sign of life may be.
	stuckAfter = 2 * time.Minute
)

// process is the running program; its parts appear as they come up.
type process struct {
	cfg        *config
	log        *slog.Logger
	metrics    *metrics
	audit      *auditStream
	notify     *daemon.Notifier
	authority  atomic.Pointer[ca.Authority]
	controller atomic.Pointer[secretcontroller.Controller]
	lease      atomic.Pointer[kube.Guard] // while this replica writes by a lease
	apiServed  atomic.Bool                // the CSR API is, where it is to be
	rootLost   atomic.Bool                // from where it is kept

	bansUntil   atomic.Pointer[time.Time] // how long those that were read last hold; nil: none were
	bansErr     atomic.Pointer[error]     // why they were not read since
	foreignBans atomic.Pointer[string]    // that were told of

	// Connections to the CSR API that were refused and not told of yet, and whose
	// the last was that had too many.
	refused, refusedEach atomic.Int64
	refusedLast          atomic.Pointer[netip.Prefix]
}

// newProcess shows from the start that nobody leads: an alert on that must not
// wait for the authority, nor find nothing to look at.
func newProcess(cfg *config, log *slog.Logger, audit *auditStream) *process {
	p := &process{cfg: cfg, log: log, metrics: newMetrics(), audit: audit, notify: daemon.NewNotifier(log)}
	if !cfg.serverOnly { // where nobody writes, nobody leads
		p.metrics.registry.MustRegister(statusMetrics{p.status})
	}
	p.metrics.gauge("citadel_clock_ahead_seconds", "How far this machine's clock is ahead of the API server's, to a second.", func() float64 {
		ahead, _ := cfg.clock.Ahead()
		return ahead.Seconds()
	})
	p.metrics.gauge("citadel_bans_failing", "1 while who is banned cannot be read: after a while nothing is issued.", func() float64 {
		if p.bansErr.Load() != nil {
			return 1
		}
		return 0
	})
	p.metrics.gauge("citadel_audit_failing", "1 while audit records cannot be written, and so nothing is signed.", func() float64 {
		if p.audit.failing() != nil {
			return 1
		}
		return 0
	})
	return p
}

// serve runs until ctx ends, and at most stopLimit longer.
func serve(ctx context.Context, cfg *config, warnings []string, stdout, stderr io.Writer) error {
	log, err := daemon.NewLogger(stderr, cfg.logFormat, cfg.logLevel)
	if err != nil {
		return err
	}
	for _, w := range append(warnings, cfg.advice()...) {
		log.Warn(w)
	}
	keeps := func(p *process) stores { return p.cluster(cfg.client) }
	if cfg.stateDir != "" {
		dir, err := statedir.Open(cfg.stateDir)
		if err != nil {
			return fmt.Errorf("--state-dir: %w", err)
		}
		defer dir.Close()
		keeps = func(p *process) stores { return p.directory(dir) }
	}
	audit, err := openAudit(cfg.auditLog, cfg.stateDir, stdout)
	if err != nil {
		return err
	}
	if _, set := os.LookupEnv("GOGC"); !set {
		debug.SetGCPercent(gcPercent)
		ballast := make([]byte, gcBallast)
		_ = syscall.Madvise(ballast, syscall.MADV_DONTNEED) // made in a part of the heap that was used before, it was filled with zeroes
		defer runtime.KeepAlive(ballast)
	}
	p := newProcess(cfg, log, audit)
	done := make(chan error, 1)
	go func() { done <- errors.Join(p.run(ctx, keeps(p)), audit.close()) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(stopLimit):
		log.Warn("stopped before everything had ended: the lease may still be held")
		return nil
	}
}

// run is the program's parts in the order they need each other.
func (p *process) run(ctx context.Context, s stores) error {
	where := slog.String("storageNamespace", p.cfg.namespace)
	if p.cfg.stateDir != "" {
		where = slog.String("stateDir", p.cfg.stateDir)
	}
	p.log.Info("citadel starts", "version", daemon.BuildVersion().Version, "trustDomain", p.cfg.td.Name(), where)
	group, ctx := errgroup.WithContext(ctx)
	if p.cfg.monitoringPort > 0 {
		group.Go(func() error { return p.monitor().Serve(ctx) })
	}
	if p.cfg.livenessPath != "" {
		group.Go(func() error { p.liveness().Run(ctx); return nil })
	}
	group.Go(func() error { p.tellSystemd(ctx); return nil })
	group.Go(func() error { return p.work(ctx, s) })
	err := group.Wait()
	if err != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err == nil {
		p.log.Info("citadel stopped")
	}
	return err
}

func (p *process) monitor() daemon.Monitor {
	return daemon.Monitor{Port: p.cfg.monitoringPort, Connections: p.cfg.monitorConnections, Metrics: p.metrics.registry, Alive: p.alive, Ready: p.ready, Profiling: p.cfg.profiling}
}

func (p *process) liveness() daemon.Liveness {
	return daemon.Liveness{Path: p.cfg.livenessPath, Interval: p.cfg.livenessInterval, Alive: p.alive, Tell: func(err error) {
		p.log.Error("the file of --liveness-probe-path was not touched: citadel probe will call this process dead", "err", err)
	}}
}

// work loads the authority, and then keeps the Secrets.
func (p *process) work(ctx context.Context, s stores) error {
	client := p.cfg.client
	if client != nil {
		p.awaitClock(ctx) // a root made now would not be valid either
	}
	authority, signer, err := p.loadAuthority(ctx, s)
	if err != nil {
		return err
	}
	p.authority.Store(authority)
	p.metrics.watchAuthority(authority)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { warnOfExpiry(ctx, p.log, authority); return nil })
	if signer.holds != nil {
		group.Go(func() error { p.watchKept(ctx, signer); return nil })
	}
	if client != nil && (p.cfg.serverOnly || !p.cfg.leaderElect) {
		group.Go(func() error { p.watchClock(ctx); return nil })
	}
	group.Go(func() error { return p.issue(ctx, s, authority) })
	return group.Wait()
}

// issue runs all that has certificates made, once it is known who is banned.
func (p *process) issue(ctx context.Context, s stores, authority *ca.Authority) error {
	if err := p.awaitBans(ctx, s, authority); err != nil {
		return nil // ctx has ended
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		every(ctx, bansEvery, func() { _ = p.readBans(ctx, s, authority) })
		return nil
	})
	if !p.cfg.serverOnly {
		group.Go(func() error { return p.control(ctx, p.cfg.client, authority) })
	}
	if p.cfg.grpcPort > 0 {
		group.Go(func() error { return p.serveAPI(ctx, s, authority) })
	}
	return group.Wait()
}

// control runs the secret controller: it watches always, and writes while this
// replica leads.
func (p *process) control(ctx context.Context, client kubernetes.Interface, authority *ca.Authority) error {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("record Events: %w", err)
	}
	controller, err := secretcontroller.New(secretcontroller.Settings{
		Client: client, Authority: authority, RootsSince: time.Now(),
		Scope: p.cfg.scope, Rotation: p.cfg.rotation(), TTL: p.cfg.workloadTTL,
		KeyType: p.cfg.leafKey, LegacyKeys: !p.cfg.pkcs8, Workers: p.cfg.workers,
		Recorder: broadcaster.NewRecorder(scheme.Scheme, "citadel"),
		Observe:  func(o secretcontroller.Observation) { p.metrics.observe(p.log, o) },
	})
	if err != nil {
		return err
	}
	p.controller.Store(controller)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { controller.Watch(ctx); return nil })
	group.Go(func() error {
		return p.whileClockRight(ctx, func(ctx context.Context) error { return p.lead(ctx, client, controller) })
	})
	return group.Wait()
}

func (p *process) lead(ctx context.Context, client kubernetes.Interface, controller *secretcontroller.Controller) error {
	if !p.cfg.leaderElect {
		return controller.Lead(ctx, nil)
	}
	lease := kube.Lease{
		Client: client, Namespace: p.cfg.namespace, Identity: identity(),
		Duration: p.cfg.leaseDuration, RenewDeadline: p.cfg.renewDeadline, RetryPeriod: p.cfg.retryPeriod,
		Changed: func(leader string) { p.log.Info("leader of the replicas", "leader", leader) },
	}
	return lease.Hold(ctx, func(ctx context.Context, guard kube.Guard) {
		p.log.Info("this replica writes")
		p.lease.Store(&guard)
		defer p.lease.Store(nil)
		err := controller.Lead(ctx, secretcontroller.Guard(guard))
		p.log.Info("this replica no longer writes", "err", err)
	})
}

// status is the controller's, and empty before there is one and once the lease
// has run out, even where a process that slept has yet to notice.
func (p *process) status() secretcontroller.Status {
	controller := p.controller.Load()
	if controller == nil {
		return secretcontroller.Status{}
	}
	if guard := p.lease.Load(); guard != nil {
		_, release, err := (*guard)(context.Background())
		if err != nil {
			return secretcontroller.Status{}
		}
		release()
	}
	return controller.Status()
}

// identity is this process's own among replicas, and of restarts in one pod.
func identity() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return strings.Join([]string{host, string(uuid.NewUUID())}, "_")
}

// alive is true as long as the controller's queue moves. Waiting for the API
// server or for the lease is life too.
func (p *process) alive() error {
	controller := p.controller.Load()
	if controller == nil {
		return nil
	}
	if s := controller.Status(); s.Leading && time.Since(s.LastHeartbeat) > stuckAfter {
		return fmt.Errorf("the controller's queue has not moved since %s", s.LastHeartbeat.UTC().Format(time.RFC3339))
	}
	return nil
}

// ready is true when a certificate could be signed now.
func (p *process) ready() error {
	if err := p.clockWrong(); err != nil {
		return err
	}
	if err := p.authority.Load().Ready(time.Now()); err != nil {
		return err
	}
	if err := p.audit.failing(); err != nil {
		return fmt.Errorf("the audit log cannot be written, and nothing is signed without: %w", err)
	}
	if err := p.bansUnknown(); err != nil {
		return err
	}
	if p.cfg.grpcPort > 0 && !p.apiServed.Load() {
		return errors.New("the CSR API is not served yet")
	}
	controller := p.controller.Load()
	if p.cfg.serverOnly || (controller != nil && controller.Synced()) {
		return nil
	}
	return errors.New("the caches have not had their first list yet")
}
