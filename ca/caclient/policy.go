package caclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"google.golang.org/grpc"

	"citadel/ca/policy"
	"citadel/ca/policyfeed"
	citadelv1 "citadel/proto/citadel/v1"
)

const (
	// maxPolicyMessage bounds a message: one object may need most of it.
	maxPolicyMessage = 16 << 20
	// maxPolicy bounds what one update or list may take, in bytes of text.
	maxPolicy = 512 << 20
	// maxUnread is more than there are kinds of objects, or bytes in the name of one.
	maxUnread = 100
)

// PolicyUpdate is what has changed of what a caller sees, as one.
type PolicyUpdate struct {
	// Snapshot says that what is not among Objects is gone; Replaced, that it is if
	// it belongs to one of these buckets.
	Snapshot bool
	Replaced []uint32
	Objects  []*policyfeed.Item
	Removed  []policy.Ref
	// Version names the state after the update, for people.
	Version    string
	Generation policy.Generation
	// Unread are kinds of objects that the Citadel does not hear of at present: what
	// is held of them may be old.
	Unread []string
}

// PolicyHeld is what a caller holds of earlier updates; the zero value is
// nothing.
type PolicyHeld struct {
	Digests    []byte // by policyfeed.Digests
	Generation policy.Generation
}

// WatchPolicy calls told with updates, at once and whenever something changes,
// until ctx or the connection ends, or told returns an error, which is returned.
// All other errors are *Error.
func (c *Client) WatchPolicy(ctx context.Context, held PolicyHeld, told func(PolicyUpdate) error) error {
	ctx, cancel := context.WithCancel(c.authorized(ctx))
	defer cancel()
	req := &citadelv1.WatchPolicyRequest{Digests: held.Digests}
	if len(held.Digests) > 0 {
		req.Generation = held.Generation.String()
	}
	stream, err := citadelv1.NewPolicyServiceClient(c.conn).WatchPolicy(ctx, req, grpc.MaxCallRecvMsgSize(maxPolicyMessage))
	if err != nil {
		return c.errorOf(err)
	}
	for {
		update, err := c.policyUpdate(stream)
		if err != nil {
			return err
		}
		if err := told(update); err != nil {
			return err
		}
	}
}

// policyUpdate receives one update with all its parts.
func (c *Client) policyUpdate(stream grpc.ServerStreamingClient[citadelv1.WatchPolicyResponse]) (u PolicyUpdate, err error) {
	size := 0
	for {
		part, err := stream.Recv()
		if err != nil {
			return PolicyUpdate{}, c.errorOf(err)
		}
		if err := u.add(part, &size); err != nil {
			return PolicyUpdate{}, &Error{Kind: Broken, Reason: "the policy that the server sent is not usable: " + err.Error()}
		}
		if part.GetComplete() {
			return u, nil
		}
	}
}

// add takes in one part, which is data from outside.
func (u *PolicyUpdate) add(part *citadelv1.WatchPolicyResponse, size *int) error {
	items, err := policyItems(part.GetObjects(), size)
	if err != nil {
		return err
	}
	u.Objects = append(u.Objects, items...)
	u.Snapshot = u.Snapshot || part.GetSnapshot()
	for _, b := range part.GetReplacedBuckets() {
		if b >= policyfeed.Buckets {
			return fmt.Errorf("there is no bucket %d", b)
		}
	}
	u.Replaced = append(u.Replaced, part.GetReplacedBuckets()...)
	for _, name := range part.GetRemoved() {
		if *size += len(name.GetKind()) + len(name.GetNamespace()) + len(name.GetName()); *size > maxPolicy {
			return fmt.Errorf("it takes more than %d bytes", maxPolicy)
		}
		kind, err := policy.ParseKind(name.GetKind())
		if err != nil {
			return err
		}
		u.Removed = append(u.Removed, policy.Ref{Kind: kind, Namespace: name.GetNamespace(), Name: name.GetName()})
	}
	if !part.GetComplete() {
		return nil
	}
	u.Version, u.Unread = part.GetVersion(), part.GetUnread()
	for i, name := range u.Unread {
		if i >= maxUnread || len(name) > maxUnread || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) {
			return errors.New("what it names as unread is no list of kinds")
		}
	}
	if u.Generation, err = policy.ParseGeneration(part.GetGeneration()); err == nil && u.Generation == policy.Auto {
		err = errors.New("it does not say whose rules answer")
	}
	return err
}

// policyItems parses objects.
func policyItems(texts [][]byte, size *int) (items []*policyfeed.Item, err error) {
	for _, text := range texts {
		if *size += len(text); *size > maxPolicy {
			return nil, fmt.Errorf("it takes more than %d bytes", maxPolicy)
		}
	}
	return policyfeed.ParseItems(texts)
}

// PolicyObjects are all that a Citadel goes by.
type PolicyObjects struct {
	Objects []policy.Object
	// Version names the state, for people, and Generation is as the Citadel was
	// configured, which may be policy.Auto.
	Version    string
	Generation policy.Generation
	// Problems are what it could not read, and goes without.
	Problems []string
	// Warnings are what is to be known of every answer.
	Warnings []policy.Warning
}

// ListPolicy returns all that the Citadel goes by, to resolve it here: for
// callers that --policy-readers names. Its errors are *Error.
func (c *Client) ListPolicy(ctx context.Context) (PolicyObjects, error) {
	ctx, cancel := context.WithCancel(c.authorized(ctx))
	defer cancel()
	stream, err := citadelv1.NewPolicyServiceClient(c.conn).ListObjects(ctx, &citadelv1.ListObjectsRequest{}, grpc.MaxCallRecvMsgSize(maxPolicyMessage))
	if err != nil {
		return PolicyObjects{}, c.errorOf(err)
	}
	var all PolicyObjects
	for size := 0; ; {
		part, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return PolicyObjects{}, &Error{Kind: Broken, Reason: "the list of what decides about mTLS ended early"}
		}
		if err != nil {
			return PolicyObjects{}, c.errorOf(err)
		}
		items, err := policyItems(part.GetObjects(), &size)
		if err == nil && part.GetComplete() {
			all.Generation, err = policy.ParseGeneration(part.GetGeneration())
		}
		if err != nil {
			return PolicyObjects{}, &Error{Kind: Broken, Reason: "the list of what decides about mTLS is not usable: " + err.Error()}
		}
		for _, item := range items {
			all.Objects = append(all.Objects, item.Object)
		}
		if part.GetComplete() {
			all.Version, all.Problems = part.GetVersion(), part.GetProblems()
			for _, w := range part.GetWarnings() {
				all.Warnings = append(all.Warnings, policy.Warning{Code: w.GetCode(), Message: w.GetMessage()})
			}
			return all, nil
		}
	}
}
