package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// A replica whose clock is wrong by more than certificates are backdated would
// make some that are not valid yet, or that end too early. It signs nothing for
// Secrets and leaves the lease to others. Which clock is right nobody can know
// here; that of the API server is the one that replicas share. Where that one is
// wrong, --max-clock-skew is the way round.

// clockEvery is how often the clock is looked at, clockAsked how often the API
// server is asked for it where no lease does so, and clockTold how often a wrong
// one is told.
const (
	clockEvery = time.Second
	clockAsked = 2 * time.Second
	clockTold  = 30 * time.Second
)

// clockWrong is why certificates must not be made; nil when nothing is known.
func (p *process) clockWrong() error {
	const remedy = "set right the one that is wrong, or raise --max-clock-skew"
	switch ahead, off := p.cfg.clock.Off(p.cfg.maxSkew); {
	case !off:
		return nil
	case ahead > 0:
		return fmt.Errorf("this machine's clock is %s ahead of the API server's, and certificates would not be valid yet: %s", ahead.Round(time.Second), remedy)
	default:
		return fmt.Errorf("this machine's clock is %s behind the API server's, and certificates would end too early: %s", -ahead.Round(time.Second), remedy)
	}
}

// rightClock is why no root must be made now: the clock is wrong, or the API
// server does not say what time it is.
func (p *process) rightClock(ctx context.Context) error {
	if err := p.knowClock(ctx); err != nil && p.cfg.maxSkew > 0 {
		return fmt.Errorf("whether this machine's clock is right is not known yet: %w", err)
	}
	return p.clockWrong()
}

// askLimit bounds one question for the time.
const askLimit = 5 * time.Second

// ask has the API server answer; any answer has a Date, a refusal too.
func (p *process) ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	err := p.cfg.client.Discovery().RESTClient().Get().AbsPath("/version").Do(ctx).Error()
	if _, answered := errors.AsType[*apierrors.StatusError](err); answered {
		return nil
	}
	return err
}

// knowClock asks the API server often enough to know the time. Its error is why
// it does not answer; who comes to need the time asks again.
func (p *process) knowClock(ctx context.Context) error {
	var err error
	for range 5 {
		if _, known := p.cfg.clock.Ahead(); known {
			return nil
		}
		err = p.ask(ctx)
	}
	if _, known := p.cfg.clock.Ahead(); known {
		return nil
	}
	return err
}

// awaitClock returns when the clock is not known to be wrong, or ctx has ended.
// It asks the API server, since nobody else may.
func (p *process) awaitClock(ctx context.Context) {
	_ = p.knowClock(ctx) // an API server that does not answer has nothing written to it either
	var told time.Time
	for ctx.Err() == nil {
		err := p.clockWrong()
		if err == nil {
			return
		}
		if now := time.Now(); now.Sub(told) >= clockTold {
			told = now
			p.log.Error("this replica does not write", "err", err)
		}
		select {
		case <-time.After(clockEvery):
		case <-ctx.Done():
		}
		_ = p.ask(ctx) // asked again until it answers
	}
}

// watchClock asks the API server again and again. With a lease this is done by
// its renewals; without, a wrong clock would be learnt with the next write.
func (p *process) watchClock(ctx context.Context) {
	ticker := time.NewTicker(clockAsked)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			_ = p.ask(ctx) // asked again until it answers
		}
	}
}

// whileClockRight runs work again and again while the clock is right, with a
// context that ends when it is not.
func (p *process) whileClockRight(ctx context.Context, work func(context.Context) error) error {
	for ctx.Err() == nil {
		p.awaitClock(ctx)
		right, wrong := context.WithCancel(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			for right.Err() == nil && p.clockWrong() == nil {
				select {
				case <-time.After(clockEvery):
				case <-right.Done():
				}
			}
			wrong()
		}()
		err := work(right)
		stopped := right.Err() != nil // by the clock, or from outside
		wrong()
		<-watched
		if err != nil && !stopped {
			return err
		}
	}
	return nil
}
