package secretcontroller

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/util/workqueue"
)

const (
	// heartbeat is how often the queue proves that it moves.
	heartbeat = 10 * time.Second
	// firstRetry and lastRetry bound the wait after a failure.
	firstRetry = 200 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// term is the work of one time of leading: its own queue, so that nothing is
// left of it when it ends.
type term struct {
	queue workqueue.TypedRateLimitingInterface[key]
	guard Guard
	beat  atomic.Int64 // Unix nanoseconds of the last heartbeat worked on
	good  atomic.Int64 // Unix nanoseconds of the last work without error
}

func newTerm(guard Guard) *term {
	t := &term{guard: guard, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[key](firstRetry, lastRetry))}
	t.beat.Store(time.Now().UnixNano())
	return t
}

// run works on keys until ctx ends, and returns when the last worker has.
func (t *term) run(ctx context.Context, workers int, work func(context.Context, key) (time.Duration, error)) {
	stop := context.AfterFunc(ctx, t.queue.ShutDown)
	defer stop()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for t.next(ctx, work) {
			}
		})
	}
	running.Wait()
}

func (t *term) next(ctx context.Context, work func(context.Context, key) (time.Duration, error)) bool {
	k, shutdown := t.queue.Get()
	if shutdown || ctx.Err() != nil {
		return false
	}
	defer t.queue.Done(k)
	again, err := work(ctx, k)
	if err != nil {
		t.queue.AddRateLimited(k)
		return true
	}
	t.queue.Forget(k)
	if again > 0 {
		t.queue.AddAfter(k, min(again, resync)) // what is gone by then is forgotten then, not hours later
	}
	now := time.Now().UnixNano()
	if k.kind == heartbeatKey {
		t.beat.Store(now)
	} else {
		t.good.Store(now)
	}
	return true
}
