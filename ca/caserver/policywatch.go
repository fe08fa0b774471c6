package caserver

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc"

	"citadel/ca"
	"citadel/ca/policy"
	"citadel/ca/policyfeed"
	citadelv1 "citadel/proto/citadel/v1"
)

const (
	// maxPart is how many bytes of objects one message holds, but that it holds one
	// at least; maxNames how many names of objects that go.
	maxPart  = 256 << 10
	maxNames = 4096
	// betweenUpdates is how long a watch rests after an update, so that a rollout
	// is not told pod by pod.
	betweenUpdates = 100 * time.Millisecond
)

// WatchPolicy sends what the caller sees at once, and what changes.
func (s *policyServer) WatchPolicy(req *citadelv1.WatchPolicyRequest, stream grpc.ServerStreamingServer[citadelv1.WatchPolicyResponse]) error {
	return s.answer(stream.Context(), "WatchPolicy", func(caller policyCaller) error {
		leave, err := s.open.open(caller.key)
		if err != nil {
			return err
		}
		defer leave()
		w := policyWatch{s, caller, stream, nil}
		return w.run(stream.Context(), req)
	})
}

// policyWatch is one call.
type policyWatch struct {
	*policyServer
	caller policyCaller
	stream grpc.ServerStreamingServer[citadelv1.WatchPolicyResponse]
	sent   *policyfeed.View // what the caller holds; nil before the first update
}

func (w *policyWatch) run(ctx context.Context, req *citadelv1.WatchPolicyRequest) error {
	recheck := time.NewTicker(w.set.Recheck)
	defer recheck.Stop()
	for {
		changed := w.set.Feed.State().Changed
		var rest <-chan time.Time
		if view := w.set.Feed.View(w.caller.namespace); view != nil && view != w.sent {
			if err := w.update(view, req); err != nil {
				return err
			}
			changed, rest = view.State.Changed, time.After(betweenUpdates)
		}
		for waiting := true; waiting; {
			select {
			case <-rest:
				rest = nil
			case <-whenRested(rest, changed):
				waiting = false
			case <-recheck.C:
				if err := w.again(ctx); err != nil {
					return err
				}
			case <-w.Server.roots.ended:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// whenRested is nil, which is never, until there is nothing to rest from.
func whenRested(rest <-chan time.Time, changed <-chan struct{}) <-chan struct{} {
	if rest != nil {
		return nil
	}
	return changed
}

// again authenticates the caller anew: a call outlives certificates, pods, and
// the day on which somebody is banned. Who cannot be checked now stays.
func (w *policyWatch) again(ctx context.Context) error {
	id, _, err := w.authenticate(ctx, time.Now())
	if err == nil && id.Caller.ID() != w.caller.id {
		err = &ca.Error{Class: ca.Unauthenticated, Reason: "the caller is another one than at the beginning"}
	}
	if code, _, _, _ := verdict(err); err != nil && code == codeOf[ca.CANotReady] {
		return nil
	}
	return err
}

// update sends a view, or the difference to what the caller holds.
func (w *policyWatch) update(view *policyfeed.View, req *citadelv1.WatchPolicyRequest) error {
	u := &update{}
	switch before := w.sent; {
	case before != nil && before.Generation == view.Generation:
		come, gone := view.Since(before)
		if len(come)+len(gone) == 0 && slices.Equal(unreadOf(before), unreadOf(view)) {
			w.sent = view
			return nil
		}
		u.objects(come)
		u.removed(gone)
	case before == nil && len(req.GetDigests()) > 0 && req.GetGeneration() == view.Generation.String():
		u.differing(view, req.GetDigests())
	default:
		u.last().Snapshot = true
		u.objects(view.Items())
	}
	last := u.last()
	last.Complete, last.Version, last.Generation, last.Unread = true, view.State.Version, view.Generation.String(), unreadOf(view)
	for _, part := range u.parts {
		if err := w.send(part); err != nil {
			return err
		}
	}
	w.sent = view
	return nil
}

// unreadOf names the kinds that are not heard of. Why is not every caller's
// business.
func unreadOf(v *policyfeed.View) (names []string) {
	for _, u := range v.State.Unread {
		names = append(names, u.What)
	}
	return names
}

// send does it on another goroutine: the stack of this one, which lasts, would
// stay as large as sending makes it. A caller that does not take the part has its
// call end, and the end of the call ends that goroutine.
func (w *policyWatch) send(part *citadelv1.WatchPolicyResponse) error {
	sent := make(chan error, 1)
	go func() { sent <- w.stream.Send(part) }()
	late := time.NewTimer(w.set.SendLimit)
	defer late.Stop()
	select {
	case err := <-sent:
		return err
	case <-late.C:
		return &limitError{reason: fmt.Sprintf("the caller has not taken an update within %s", w.set.SendLimit), retry: time.Second}
	}
}

// update is one in parts that fit into messages.
type update struct {
	parts []*citadelv1.WatchPolicyResponse
	size  int // of the objects of the last part
}

func (u *update) last() *citadelv1.WatchPolicyResponse {
	if len(u.parts) == 0 {
		u.next()
	}
	return u.parts[len(u.parts)-1]
}

func (u *update) next() {
	u.parts, u.size = append(u.parts, &citadelv1.WatchPolicyResponse{}), 0
}

func (u *update) objects(items []*policyfeed.Item) {
	for _, item := range items {
		text := item.Text()
		if part := u.last(); len(part.Objects) > 0 && u.size+len(text) > maxPart {
			u.next()
		}
		part := u.last()
		part.Objects, u.size = append(part.Objects, text), u.size+len(text)
	}
}

func (u *update) removed(refs []policy.Ref) {
	for _, ref := range refs {
		if len(u.last().Removed) >= maxNames {
			u.next()
		}
		part := u.last()
		part.Removed = append(part.Removed, nameOf(ref))
	}
}

// differing is what the caller holds otherwise, by buckets.
func (u *update) differing(view *policyfeed.View, digests []byte) {
	buckets := map[uint32]bool{}
	for _, b := range policyfeed.Differing(view.Digests(), digests) {
		buckets[b] = true
		u.last().ReplacedBuckets = append(u.last().ReplacedBuckets, b)
	}
	var items []*policyfeed.Item
	for _, item := range view.Items() {
		if len(buckets) > 0 && buckets[policyfeed.Bucket(item.Object.Ref())] {
			items = append(items, item)
		}
	}
	u.objects(items)
}

func nameOf(ref policy.Ref) *citadelv1.ObjectName {
	return &citadelv1.ObjectName{Kind: ref.Kind.String(), Namespace: ref.Namespace, Name: ref.Name}
}
