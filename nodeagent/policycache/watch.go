package policycache

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca/caclient"
)

// Watch is how a CA is watched.
type Watch struct {
	// Config is how to reach the CA, with the proof of who asks; false: there is
	// nothing to prove it with yet.
	Config func() (caclient.Config, bool)
	// Policy watches: caclient's.
	Policy func(ctx context.Context, cfg caclient.Config, held caclient.PolicyHeld, told func(caclient.PolicyUpdate) error) error
	// Again asks for another Config to be used from now on. May be nil.
	Again <-chan struct{}
	// Tell hears of updates, with nil, and of why there are none, or why a restart
	// will not know of one. It must be safe for concurrent use.
	Tell func(error)
}

const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 6 * time.Second // and half of it more: 10,000 agents then ask 1,700 times a second
	// noService is the wait where the CA serves no policy.
	noService = time.Minute
	// saveApart is how long at least there is between two writes of the file.
	saveApart = time.Second
)

// Run keeps the cache as the CA says, and the file as the cache, until ctx ends.
func (c *Cache) Run(ctx context.Context, w Watch) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { c.keep(ctx, w.Tell) })
	wait := firstRetry
	for ctx.Err() == nil {
		pause := firstRetry
		if cfg, ok := w.Config(); ok {
			told, err := c.watch(ctx, w, cfg)
			if told {
				wait = firstRetry
			}
			pause, wait = wait, min(2*wait, lastRetry)
			if e, ours := errors.AsType[*caclient.Error](err); ours && e.Kind == caclient.Broken {
				pause = noService
			}
			if errors.Is(err, context.Canceled) { // for another Config
				continue
			}
		}
		select {
		case <-time.After(pause/2 + rand.N(pause)):
		case <-w.Again:
		case <-ctx.Done():
		}
	}
}

// watch watches once, and tells whether the CA said anything.
func (c *Cache) watch(ctx context.Context, w Watch, cfg caclient.Config) (told bool, err error) {
	attempt, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	again := false
	go func() {
		defer close(ended)
		select {
		case <-w.Again:
			again = true
			cancel()
		case <-attempt.Done():
		}
	}()
	c.ask(identityOf(cfg))
	err = w.Policy(attempt, cfg, c.Held(), func(u caclient.PolicyUpdate) error {
		told = true
		c.Update(time.Now(), u)
		w.Tell(nil)
		return nil
	})
	cancel()
	<-ended
	if again || ctx.Err() != nil {
		c.Lost(time.Now(), nil)
		return told, context.Canceled
	}
	c.Lost(time.Now(), err)
	w.Tell(err)
	return told, err
}

// identityOf is who asks with a proof; zero where that is a token.
func identityOf(cfg caclient.Config) spiffeid.ID {
	if cfg.Certificate == nil || cfg.Certificate.Leaf == nil {
		return spiffeid.ID{}
	}
	id, _ := x509svid.IDFromCert(cfg.Certificate.Leaf) // zero where there is none
	return id
}

// keep writes the file whenever there is something new, but not all the time, and
// once more when ctx ends.
func (c *Cache) keep(ctx context.Context, tell func(error)) {
	for ctx.Err() == nil {
		select {
		case <-c.dirty:
		case <-ctx.Done():
		}
		if err := c.Keep(); err != nil {
			tell(err)
		}
		select {
		case <-time.After(saveApart):
		case <-ctx.Done():
		}
	}
	if err := c.Keep(); err != nil {
		tell(err)
	}
}
