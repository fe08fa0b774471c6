// Package secretcontroller keeps one Kubernetes Secret per service account
// filled with a private key, a SPIFFE certificate chain and the roots, and
// rotates it; and it keeps the roots in every managed namespace.
//
// It is level-triggered: it looks at the whole of what is there, decides by
// Judge, and makes one write. It refuses to log, to elect a leader, to hold
// state that a restart would miss, and to touch Secrets that are not its own.
package secretcontroller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/events"

	"citadel/ca"
	"citadel/ca/trust"
)

// Settings are what a Controller works with. All are required but Guard.
type Settings struct {
	// Client reaches the API server, with the controller's own rights.
	Client kubernetes.Interface
	// Authority certifies, and its roots are what Secrets must hold.
	Authority *ca.Authority
	// RootsSince is since when those roots are in force.
	RootsSince time.Time
	// Scope says which namespaces are managed.
	Scope Scope
	// Rotation says when good certificates are replaced.
	Rotation Rotation
	// TTL is the life of the certificates.
	TTL time.Duration
	// KeyType is the type of their keys. LegacyKeys encodes these as the
	// ancestor did by default, else they are PKCS#8.
	KeyType    trust.KeyType
	LegacyKeys bool
	// Workers is how many objects are worked on at once.
	Workers int
	// Recorder takes Events on service accounts.
	Recorder events.EventRecorder
	// Observe hears of each piece of work done or failed. It is called from
	// many goroutines and must not block.
	Observe func(Observation)
}

// Guard gives a write its time limit: the moment until which this process may
// be sure to lead. It returns an error when that has passed.
type Guard func(context.Context) (context.Context, context.CancelFunc, error)

// Observation is one piece of work.
type Observation struct {
	Object   string // "Secret" or "ConfigMap"
	Name     string // namespace/name
	Action   Action
	Reason   Reason    // why it was not right
	Detail   string    // the same in words
	NotAfter time.Time // of the certificate written
	RenewAt  time.Time
	Took     time.Duration
	Err      error
}

// Action is what was done to an object, or tried.
type Action string

// The actions.
const (
	Created  Action = "created"
	Replaced Action = "replaced"
	Deleted  Action = "deleted"
	Refused  Action = "refused" // a foreign object bears our name
	Failed   Action = "failed"  // before it was known what to do
	Paused   Action = "paused"  // somebody keeps undoing it: it waits
)

// Controller watches service accounts, Secrets, namespaces and ConfigMaps.
type Controller struct {
	set   Settings
	roots Roots
	watch *watch
	ledge ledger
	term  atomic.Pointer[term] // the queue and workers of now; nil while another process leads
}

// New returns a controller that does nothing yet.
func New(s Settings) (*Controller, error) {
	if s.Client == nil || s.Authority == nil || s.Recorder == nil || s.Observe == nil || s.Workers < 1 || s.TTL <= 0 {
		return nil, errors.New("secret controller: client, authority, recorder, observer, workers and TTL must all be set")
	}
	if n, size := len(s.Authority.Signer().Chain()), len(s.Authority.Signer().ChainPEM()); n >= maxChain || size > maxChainBytes/2 {
		return nil, fmt.Errorf("secret controller: the signing certificate's chain of %d certificates and %d bytes is too long for Secrets: at most %d and %d",
			n, size, maxChain-1, maxChainBytes/2)
	}
	c := &Controller{set: s, roots: NewRoots(s.Authority.Signer().Roots(), s.RootsSince)}
	c.ledge.entries, c.ledge.told = map[key]entry{}, map[string]string{}
	var err error
	if c.watch, err = newWatch(s.Client, s.Scope, c.roots.pem, c.wake); err != nil {
		return nil, fmt.Errorf("secret controller: %w", err)
	}
	return c, nil
}

// Watch keeps the caches filled until ctx ends. It writes nothing.
func (c *Controller) Watch(ctx context.Context) { c.watch.run(ctx) }

// Synced tells whether every cache has had its first complete list.
func (c *Controller) Synced() bool { return c.watch.synced() }

// Lead writes, until ctx ends; then it waits for the writes under way and
// returns. Call it while this process is the one that may write, and no two of
// it at a time.
func (c *Controller) Lead(ctx context.Context, guard Guard) error {
	if err := c.watch.wait(ctx); err != nil {
		return err
	}
	t := newTerm(guard)
	c.term.Store(t)
	defer c.term.Store(nil)
	for _, k := range c.watch.allKeys() {
		t.queue.Add(k)
	}
	t.run(ctx, c.set.Workers, c.reconcile)
	c.ledge.clear()
	return nil
}

// wake queues a key, if this process leads; if not, the leader's own watch
// does.
func (c *Controller) wake(k key) {
	if t := c.term.Load(); t != nil {
		t.queue.Add(k)
	}
}

// reconcile brings the object of one key to what it must be, and returns in
// how long to look again; zero means when something changes.
func (c *Controller) reconcile(ctx context.Context, k key) (time.Duration, error) {
	switch k.kind {
	case accountKey:
		return c.reconcileAccount(ctx, k)
	case rootsKey:
		return c.reconcileRoots(ctx, k)
	case legacyRootsKey:
		return c.reconcileLegacyRoots(ctx, k)
	}
	return heartbeat, nil
}

// observe completes an observation, and turns what a person should know into
// an Event on the service account.
func (c *Controller) observe(start time.Time, o Observation, account *corev1.ObjectReference) {
	o.Took = time.Since(start)
	o.Detail = clip(o.Detail, maxDetail)
	c.set.Observe(o)
	if account == nil || o.Err == nil && o.Action != Paused {
		return
	}
	reason, text := "SecretFailed", fmt.Sprint(o.Err)
	switch {
	case o.Action == Paused:
		reason, text = "SecretContended", o.Detail
	case o.Reason == Held:
		reason = "SecretHeld"
	case o.Action == Refused:
		reason = "SecretNameTaken"
	}
	c.set.Recorder.Eventf(account, nil, corev1.EventTypeWarning, reason, "IssueSecret", "%s", clip(fmt.Sprintf("Secret %s: %s", o.Name, text), maxNote))
}

// Bounds on text that somebody else may have had a hand in: an Event's note
// holds 1024 bytes, and is refused when it is longer.
const (
	maxDetail = 400
	maxCause  = 150 // within a detail
	maxNote   = 1000
)

func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}
