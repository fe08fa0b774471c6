package kube

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaseName is the Lease, in the storage namespace, that the writing replica
// holds.
const LeaseName = "istio-citadel"

// Lease says how the writing replica is chosen (K-9).
type Lease struct {
	Client    kubernetes.Interface
	Namespace string
	// Identity is this replica's own name.
	Identity string
	// Duration is how long others wait for a holder that has gone silent.
	// RenewDeadline, shorter, is how long the holder trusts a renewal: what lies
	// between is the margin for writes already under way. RetryPeriod is the
	// wait between attempts.
	Duration, RenewDeadline, RetryPeriod time.Duration
	// Changed hears who leads now. May be nil.
	Changed func(identity string)
}

// Guard gives a write the time limit up to which this replica surely leads,
// or an error when that is past.
type Guard func(context.Context) (context.Context, context.CancelFunc, error)

// Hold takes part in the election until ctx ends, and runs work for as long as
// this replica leads, each time it does. Work's context ends when leading
// does, or ctx; only when work has returned is the lease released.
func (l Lease) Hold(ctx context.Context, work func(context.Context, Guard)) error {
	for ctx.Err() == nil {
		if err := l.once(ctx, work); err != nil {
			return err
		}
	}
	return nil
}

// once is one election and, where won, one term.
func (l Lease) once(ctx context.Context, work func(context.Context, Guard)) error {
	// Electing outlives ctx: the lease is given up after the work has ended,
	// not before.
	electing, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	lock := l.lock()
	ended := make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: l.Duration, RenewDeadline: l.RenewDeadline, RetryPeriod: l.RetryPeriod,
		ReleaseOnCancel: true, Name: LeaseName,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(leading context.Context) {
				defer close(ended)
				defer stop()
				working, cancel := context.WithCancel(leading)
				defer cancel()
				defer context.AfterFunc(ctx, cancel)()
				work(working, lock.guard)
			},
			OnStoppedLeading: func() {},
			OnNewLeader:      l.changed,
		},
	})
	if err != nil {
		return fmt.Errorf("elect the writing replica by Lease %s/%s: %w", l.Namespace, LeaseName, err)
	}
	defer context.AfterFunc(ctx, func() {
		if !lock.won.Load() {
			stop()
		}
	})()
	elector.Run(electing)
	if lock.won.Load() {
		<-ended
	}
	return nil
}

func (l Lease) changed(identity string) {
	if l.Changed != nil {
		l.Changed(identity)
	}
}

func (l Lease) lock() *fencedLock {
	return &fencedLock{
		Interface: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: l.Namespace, Name: LeaseName},
			Client:     l.Client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: l.Identity},
		},
		trusted: l.RenewDeadline,
	}
}

// fencedLock notes until when the lease can be relied on: others wait for
// Lease.Duration from when they see a renewal, which is never before it was
// begun.
type fencedLock struct {
	resourcelock.Interface
	trusted time.Duration
	won     atomic.Bool
	until   atomic.Pointer[time.Time]
	holder  atomic.Pointer[string] // by the last Get
}

// Get reads the lease.
func (f *fencedLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	r, raw, err := f.Interface.Get(ctx)
	if err == nil {
		f.holder.Store(&r.HolderIdentity)
	}
	return r, raw, err
}

// Create makes the lease object, which wins it.
func (f *fencedLock) Create(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	begun := time.Now()
	return f.note(begun, r, f.Interface.Create(ctx, r))
}

// Update wins, renews or releases the lease. client-go reads the lease before
// it releases it and goes by what it remembers all the same: a release that
// comes late must not give away another's.
func (f *fencedLock) Update(ctx context.Context, r resourcelock.LeaderElectionRecord) error {
	if holder := f.holder.Load(); r.HolderIdentity == "" && (holder == nil || *holder != f.Identity()) {
		return errors.New("the lease is another's by now: it is not given back")
	}
	begun := time.Now()
	return f.note(begun, r, f.Interface.Update(ctx, r))
}

func (f *fencedLock) note(begun time.Time, r resourcelock.LeaderElectionRecord, err error) error {
	if err == nil && r.HolderIdentity == f.Identity() {
		until := begun.Add(f.trusted)
		f.until.Store(&until)
		f.won.Store(true)
	}
	return err
}

func (f *fencedLock) guard(ctx context.Context) (context.Context, context.CancelFunc, error) {
	until := f.until.Load()
	if until == nil || !time.Now().Before(*until) {
		return nil, nil, fmt.Errorf("the lease to write is not ours any more: %w", context.Canceled)
	}
	ctx, cancel := context.WithDeadline(ctx, *until)
	return ctx, cancel, nil
}
