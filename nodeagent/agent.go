// Package nodeagent keeps a host supplied: it has a key certified, hands key,
// chain and roots to sinks, and renews them in time, through outages of the CA,
// sleep, wrong clocks and changes of roots.
//
// It refuses to touch what is good before a whole answer has been checked, to
// end because a CA does not answer, to take an identity from the CA that is not
// this host's, and to log: what happens goes to Settings.Observe.
package nodeagent

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/ca/trust"
	"citadel/nodeagent/certdir"
)

// Sink takes what programs need. Install replaces all of it as one, or leaves
// what was there.
type Sink interface{ Install(certdir.Set) error }

// JoinKey keeps the key with which a host is joining. Load's error is
// fs.ErrNotExist when there is none.
type JoinKey interface {
	Load() (crypto.Signer, error)
	Save(crypto.Signer) error
	Remove() error
}

// Settings are what an Agent is made from. Functions must be set.
type Settings struct {
	// Address is the CA's, and AddressGiven says that a person gave it, so that a
	// join token's does not count.
	Address      string
	AddressGiven bool
	ServerName   string
	// Fingerprints and Roots are what is trusted beside the roots that are held.
	Fingerprints []string
	Roots        func() ([]*x509.Certificate, error)
	// Token and Join read the proofs of hosts that hold no certificate yet, anew
	// each time; fs.ErrNotExist says that there is none.
	Token   func() (string, error)
	Join    func() (caclient.Join, error)
	JoinKey JoinKey
	// Joined keeps the address at which a host was taken in by a join token: it is
	// where to renew from now on. It is called before anything is installed, so
	// that no crash leaves a host that does not know whom to ask. May be nil.
	Joined func(address string) error

	// Sign and Watch ask a CA.
	Sign  func(ctx context.Context, cfg caclient.Config, csr []byte, ttl time.Duration) (caclient.Issued, error)
	Watch func(ctx context.Context, cfg caclient.Config, told func(caclient.Roots)) error

	// ID is who the host must be; zero: who it is already, or else who the CA says.
	ID           spiffeid.ID
	TTL          time.Duration
	KeyType      trust.KeyType
	Organization string
	Renewal      Renewal

	// Held reads what the sinks hold, as long as the agent holds nothing: somebody
	// may put files there. fs.ErrNotExist says that there is nothing. May be nil.
	Held  func() (certdir.Set, error)
	Sinks []Sink
	// Reload makes programs take a new set. May be nil.
	Reload func(context.Context) error
	// Owed tells at the start that programs have not taken what the sinks hold, and
	// Owes keeps that they have not, over restarts. It may be nil.
	Owed bool
	Owes func(bool) error
	// Beat is called by the loop at each turn, at least every Every, and before
	// each of the steps that may take long. May be nil.
	Beat func()
	// Every is the longest that the loop sleeps; a minute if zero.
	Every time.Duration
	// Wrong is what was found wrong before the start, and is told with each
	// failure.
	Wrong []error
	// Observe hears what happens. It must be quick.
	Observe func(Event)
}

// Agent is the loop. Make it by New, and run it once.
type Agent struct {
	set     Settings
	status  atomic.Pointer[Status]
	renew   chan struct{}
	told    chan caclient.Roots
	watched atomic.Pointer[caclient.Config]
	rewatch chan struct{} // watched is another CA's now, or trusts other roots

	reloads  sync.WaitGroup
	reloaded chan error // how the reload under way ended

	// What follows is the loop's own.
	held       *certdir.Set
	dialled    string // where the CA was last asked
	renewBy    time.Time
	askedAt    time.Time // when the CA was last asked
	retryAt    time.Time // not before is it asked again; zero while nothing has failed
	failures   int
	owed       bool      // programs have not taken the newest set
	owedAt     time.Time // and are told again then
	owedFailed int
	reloading  bool // a reload is under way
	outrun     bool // and a newer set was installed since it began
	last       Status
}

// New makes an agent that has not begun.
func New(set Settings) *Agent {
	if set.Every == 0 {
		set.Every = time.Minute
	}
	a := &Agent{set: set, renew: make(chan struct{}, 1), told: make(chan caclient.Roots), rewatch: make(chan struct{}, 1),
		reloaded: make(chan error, 1), owed: set.Owed && set.Reload != nil}
	_ = a.load() // told when the CA is asked
	a.tell()
	return a
}

// load takes what the sinks hold, while the agent holds nothing.
func (a *Agent) load() error {
	if a.held != nil || a.set.Held == nil {
		return nil
	}
	held, err := a.set.Held()
	if err != nil {
		return err
	}
	a.held = &held
	if !a.asSet(held) {
		a.renewBy = wall()
	}
	return nil
}

// asSet tells whether a set is as the settings want new ones: a person who
// changes them does not wait for the next renewal.
func (a *Agent) asSet(held certdir.Set) bool {
	leaf := held.SVID.Certificates[0]
	life := leaf.NotAfter.Sub(leaf.NotBefore) - trust.Backdate
	const rounding = 2 * time.Second
	return held.SVID.ID == a.want() && a.set.KeyType.Is(leaf.PublicKey) && (life-a.set.TTL).Abs() <= rounding
}

// Status is that of now.
func (a *Agent) Status() Status { return *a.status.Load() }

// Renew has the agent renew at once.
func (a *Agent) Renew() {
	select {
	case a.renew <- struct{}{}:
	default:
	}
}

// want is who this host must be; zero when nobody has said.
func (a *Agent) want() spiffeid.ID {
	if a.set.ID.IsZero() && a.held != nil {
		return a.held.SVID.ID
	}
	return a.set.ID
}

// Run keeps the host supplied until ctx ends.
func (a *Agent) Run(ctx context.Context) {
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		a.watch(ctx)
	}()
	defer func() {
		<-watching
		a.reloads.Wait()
	}()
	for ctx.Err() == nil {
		now := wall()
		a.step(ctx, now)
		a.beat()
		a.sleep(ctx, wall())
	}
}

// wall is the time by the clock on the wall: a timer does not see that the host
// slept, or that its clock was set.
func wall() time.Time { return time.Now().Round(0) }

// step does what is due.
func (a *Agent) step(ctx context.Context, now time.Time) {
	if !now.Before(a.nextAsk(now)) {
		a.obtain(ctx, now)
	}
	if now = wall(); a.owed && !a.reloading && !now.Before(a.nextReload(now)) {
		a.reload(ctx)
	}
	a.tell()
}

// nextAsk is when the CA is to be asked.
func (a *Agent) nextAsk(now time.Time) time.Time {
	due := now
	if a.held != nil {
		due = a.dueAt(now)
	}
	if retry := sane(now, a.retryAt); retry.After(due) {
		return retry
	}
	return due
}

func (a *Agent) nextReload(now time.Time) time.Time { return sane(now, a.owedAt) }

// sane is when to try again, or now where that is further away than any wait:
// the clock was set back.
func sane(now, again time.Time) time.Time {
	if again.Sub(now) > lastRetry {
		return now
	}
	return again
}

// dueAt is when the certificate that is held is due. One that is not valid yet
// is due now: to ask is to hear what is wrong with the clock.
func (a *Agent) dueAt(now time.Time) time.Time {
	leaf := a.held.SVID.Certificates[0]
	if now.Before(leaf.NotBefore) {
		return now
	}
	return a.set.Renewal.dueAt(leaf, a.renewBy)
}

// hurryApart keeps those who want a renewal at once from asking the CA, and
// writing files, without a pause.
const hurryApart = time.Second

// hurry has the certificate renewed at once.
func (a *Agent) hurry(now time.Time) { a.renewBy, a.retryAt = now, a.askedAt.Add(hurryApart) }

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// sleep ends when something is due, or has come, and after Every at the latest.
func (a *Agent) sleep(ctx context.Context, now time.Time) {
	wait := min(a.set.Every, a.nextAsk(now).Sub(now))
	if a.owed && !a.reloading {
		wait = min(wait, a.nextReload(now).Sub(now))
	}
	timer := time.NewTimer(max(wait, 0))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-a.renew:
		a.hurry(wall())
	case roots := <-a.told:
		a.takeRoots(wall(), roots)
	case err := <-a.reloaded:
		a.afterReload(ctx, err)
	case <-ctx.Done():
	}
}

// obtain has a certificate issued and installed, or notes why not.
func (a *Agent) obtain(ctx context.Context, now time.Time) {
	wrong := a.load()
	if a.held != nil && now.Before(a.nextAsk(now)) {
		a.failures, a.retryAt, a.last.LastError = 0, time.Time{}, ""
		a.observe(Event{What: "somebody put a key and certificates into the files"})
		return
	}
	got, err := a.climb(ctx, now, wrong)
	a.askedAt = wall()
	if err == nil && got.by.joins && a.set.Joined != nil {
		err = a.set.Joined(got.by.cfg.Address)
	}
	if err == nil {
		err = a.install(wall(), got.set)
	}
	if err != nil {
		if ctx.Err() != nil {
			return
		}
		a.failures++
		var asked time.Duration
		if f, ok := errors.AsType[*failure](err); ok {
			asked = f.retryAfter()
		}
		a.retryAt = a.askedAt.Add(retryIn(a.failures, asked))
		a.last.LastError = oneLine(err.Error())
		a.observe(Event{What: "no new certificate", Err: err})
		return
	}
	a.held, a.renewBy = &got.set, got.renewBy
	a.failures, a.retryAt = 0, time.Time{}
	a.last.LastError, a.last.LastRenewal, a.last.RenewedBy = "", wall(), got.by.name
	a.last.Renewals++
	if got.by.joins {
		a.joined(got.by.cfg.Address)
	}
	a.observe(Event{What: "certificate renewed", By: got.by.name})
}

// joined asks where it joined from now on, and forgets the key, which is now in
// the sinks.
func (a *Agent) joined(address string) {
	a.set.Address = address
	if err := a.set.JoinKey.Remove(); err != nil {
		a.observe(Event{What: "joined, but its key is left behind", Err: err})
	}
}

// install hands a set to every sink, and owes programs a reload.
func (a *Agent) install(now time.Time, set certdir.Set) error {
	a.owes(true)
	for _, sink := range a.set.Sinks {
		if err := sink.Install(set); err != nil {
			return err
		}
	}
	if a.set.Reload != nil {
		a.owed, a.outrun, a.owedAt, a.owedFailed = true, true, now, 0
	}
	return nil
}

// reload makes programs take the new set, beside the loop: a program that hangs
// must hold up neither renewals nor new roots.
func (a *Agent) reload(ctx context.Context) {
	a.reloading, a.outrun = true, false
	a.reloads.Go(func() { a.reloaded <- a.set.Reload(ctx) })
}

// afterReload has programs told again: of a set that is newer than what they were
// told of, or later if they could not be told.
func (a *Agent) afterReload(ctx context.Context, err error) {
	a.reloading = false
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		a.last.ReloadError = ""
		if a.owed = a.outrun; !a.owed {
			a.owes(false)
		}
		return
	}
	a.owedFailed++
	a.last.ReloadError = oneLine(err.Error())
	a.owedAt = wall().Add(retryIn(a.owedFailed, 0))
	a.observe(Event{What: "the files are renewed, but programs were not made to read them", Err: err})
}

// owes keeps over a restart whether programs are owed a reload. That it cannot
// be kept must not stop a renewal.
func (a *Agent) owes(owed bool) {
	if a.set.Owes == nil || a.set.Reload == nil {
		return
	}
	if err := a.set.Owes(owed); err != nil {
		a.observe(Event{What: "a restart will not know whether programs have read the files", Err: err})
	}
}

func (a *Agent) beat() {
	if a.set.Beat != nil {
		a.set.Beat()
	}
}
