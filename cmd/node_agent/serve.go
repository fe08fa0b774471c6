package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sync/errgroup"

	"citadel/ca/caclient"
	"citadel/cmd/internal/daemon"
	"citadel/nodeagent"
	"citadel/nodeagent/certdir"
)

// serve runs until ctx ends.
func serve(ctx context.Context, cfg *config, warnings []string, stderr io.Writer) (err error) {
	log, err := daemon.NewLogger(stderr, cfg.logFormat, cfg.logLevel)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		log.Warn(w)
	}
	log.Info("node_agent starts", "version", daemon.BuildVersion().Version)
	lock, err := state{cfg.stateDir}.hold(log)
	if err != nil {
		return err
	}
	if lock != nil {
		defer func() { err = errors.Join(err, lock.Close()) }()
	}
	sink, err := cfg.dir.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, sink.Close()) }()
	p := &process{cfg: cfg, log: log, notify: daemon.NewNotifier(log), hangups: hangups()}
	p.metrics = newMetrics(func() status { return p.status() })
	settings := p.settings()
	if cfg.policy {
		p.policy = p.newPolicyWatch()
	}
	settings.Sinks = []nodeagent.Sink{sink}
	if cfg.enforce != nil {
		if p.enforcing, err = newEnforcing(cfg.enforce, cfg.logFormat, p.policy.Current, log); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.enforcing.close()) }()
		if _, p.enforcing.others, err = daemon.ReadKey(cfg.configFile, keyEnforce); err != nil {
			return err
		}
		p.enforcing.counts.register(p.metrics.registry, p.enforcing.enforcer.Open)
		settings.Sinks = append(settings.Sinks, p.enforcing.credentials)
	}
	settings.Held = func() (certdir.Set, error) { return p.held(sink) }
	p.agent = nodeagent.New(settings)
	return p.run(ctx)
}

// narrow lets no more people read an adopted key than --key-mode does.
func (p *process) narrow(key func() (had fs.FileMode, err error)) {
	had, err := key()
	switch {
	case err != nil:
		p.log.Warn("more people can read the key than --key-mode lets, until it is renewed", "err", err, "mode", fmt.Sprintf("%#o", had), "key", p.cfg.key)
	case had != 0:
		p.log.Info("the key has the mode of --key-mode now", "was", fmt.Sprintf("%#o", had), "key", p.cfg.key)
	}
}

// process is the running program.
type process struct {
	cfg     *config
	log     *slog.Logger
	metrics *metrics
	notify  *daemon.Notifier
	agent   *nodeagent.Agent
	policy  *policyWatch // nil without --policy

	enforcing *enforcing // nil unless the configuration file has key enforce
	hangups   <-chan os.Signal
}

// run is the program's parts. All but the listeners go on until the connections
// that are open have ended, or their time is up.
func (p *process) run(stop context.Context) (err error) {
	var control net.Listener
	if p.cfg.socket != "" {
		if control, err = listenControl(p.cfg.socket); err != nil {
			return err
		}
	}
	group, living := errgroup.WithContext(context.WithoutCancel(stop))
	ctx, end := context.WithCancel(living)
	defer end()
	group.Go(func() error {
		defer end()
		return p.serving(stop, living)
	})
	if control != nil {
		group.Go(func() error { return serveControl(ctx, control, p.agent, p.status) })
	}
	if p.cfg.monitoringPort > 0 {
		monitor := daemon.Monitor{Host: "127.0.0.1", Port: p.cfg.monitoringPort, Metrics: p.metrics.registry, Alive: p.alive, Ready: p.ready}
		group.Go(func() error { return monitor.Serve(ctx) })
	}
	if p.policy != nil {
		group.Go(func() error { p.policy.run(ctx); return nil })
	}
	group.Go(func() error { p.rereads(ctx); return nil })
	group.Go(func() error {
		tellSystemd(p.notify, p.agent.Status())
		p.agent.Run(ctx)
		p.notify.Stopping()
		return nil
	})
	if err = group.Wait(); err == nil {
		p.log.Info("node_agent stopped")
	}
	return err
}

// serving carries connections until the agent is to stop, or a part of it has
// failed.
func (p *process) serving(stop, living context.Context) error {
	ctx, cancel := context.WithCancel(living)
	defer cancel()
	defer context.AfterFunc(stop, cancel)()
	if p.enforcing != nil {
		return p.enforcing.run(ctx)
	}
	<-ctx.Done()
	return nil
}

func (p *process) settings() nodeagent.Settings {
	cfg, kept := p.cfg, state{p.cfg.stateDir}
	address, wrong := cfg.address, []error(nil)
	if joined, err := kept.address(); err != nil && !cfg.addressGiven {
		p.log.Error("where the host joined is not known any more", "err", err, "ca", address)
		wrong = append(wrong, err)
	} else if joined != "" && !cfg.addressGiven {
		address = joined
	}
	s := nodeagent.Settings{
		Wrong: wrong, Held: cfg.dir.Load,
		Address: address, AddressGiven: cfg.addressGiven, ServerName: cfg.serverName, Fingerprints: cfg.pins,
		Roots:   func() ([]*x509.Certificate, error) { return readRoots(cfg.rootFile, cfg.root) },
		Token:   func() (string, error) { return readToken(cfg.tokenFile) },
		Join:    func() (caclient.Join, error) { return readJoin(cfg.joinFile) },
		JoinKey: kept, Joined: kept.saveAddress,
		Sign: sign, Watch: watch,
		ID: cfg.spiffeID, TTL: cfg.ttl, KeyType: cfg.kind, Organization: cfg.org, Renewal: nodeagent.DefaultRenewal,
		Reload: cfg.reload, Owed: kept.owed(), Owes: kept.owes, Beat: p.beat, Every: p.notify.Every(time.Minute), Observe: p.observe,
	}
	if _, err := cfg.dir.Load(); err != nil && !errors.Is(err, fs.ErrNotExist) {
		p.log.Error("the certificate files are not usable, and are left as they are until there are new ones", "err", err)
	}
	if _, err := s.Roots(); err != nil {
		p.log.Warn("not all roots of the CA are read; those beside the certificate count", "err", err)
	}
	return s
}

// sign asks on a connection of its own: each has the proof of its time.
func sign(ctx context.Context, cfg caclient.Config, csr []byte, ttl time.Duration) (caclient.Issued, error) {
	client, err := caclient.New(cfg)
	if err != nil {
		return caclient.Issued{}, err
	}
	defer client.Close()
	return client.Sign(ctx, csr, ttl)
}

func watch(ctx context.Context, cfg caclient.Config, told func(caclient.Roots)) error {
	client, err := caclient.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.WatchRoots(ctx, told)
}

// beat is called by the loop itself: one that hangs is killed.
func (p *process) beat() {
	p.notify.Beat()
	tellSystemd(p.notify, p.agent.Status())
}

// observe logs what happened.
func (p *process) observe(e nodeagent.Event) {
	p.metrics.observe(e)
	if e.Err == nil {
		p.policy.rewatch()
	}
	tellSystemd(p.notify, e.Status)
	now := time.Now()
	attrs := []any{"identity", e.Status.Identity, "ca", e.Status.CA}
	switch {
	case e.By != "":
		// The ancestor's words, for which people look.
		p.log.Info(fmt.Sprintf("CSR is approved successfully. Will renew cert in %s", e.Status.RenewAt.Sub(now).Round(time.Second)),
			append(attrs, "by", e.By, "serial", e.Status.Serial, "notAfter", e.Status.NotAfter.UTC(), "renewAt", e.Status.RenewAt.UTC(), "roots", e.Status.Roots)...)
	case e.Err == nil:
		p.log.Info(e.What, append(attrs, "roots", e.Status.Roots)...)
	default:
		level := slog.LevelWarn
		if !e.Status.Valid(now) {
			level = slog.LevelError
		}
		p.log.Log(context.Background(), level, e.What, append(attrs, "err", e.Err, "certificate", left(e.Status, now), "nextTry", e.Status.NextTry.UTC())...)
	}
}

// left says what remains of the certificate, to be read after its name.
func left(s nodeagent.Status, now time.Time) string {
	switch {
	case s.NotAfter.IsZero():
		return "none"
	case now.Before(s.NotBefore):
		return "not valid before " + s.NotBefore.UTC().Format(time.RFC3339)
	case now.After(s.NotAfter):
		return "expired " + now.Sub(s.NotAfter).Round(time.Second).String() + " ago"
	}
	return s.NotAfter.Sub(now).Round(time.Second).String() + " left"
}

// alive is for those who have no watchdog.
func (p *process) alive() error { return p.notify.Late(lateAfter) }

// ready is true while programs have a certificate that counts, and where their
// connections go by policy, that too.
func (p *process) ready() error {
	if s := p.agent.Status(); !s.Valid(time.Now()) {
		return fmt.Errorf("there is no valid certificate: %s", s.LastError)
	}
	if p.enforcing != nil && p.policy.Current() == nil {
		return errors.New("there is no policy: services are STRICT, and nobody may be called")
	}
	return nil
}
