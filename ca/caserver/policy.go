package caserver

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/status"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/policyfeed"
	citadelv1 "citadel/proto/citadel/v1"
)

// PolicySettings are what the policy service is made from.
type PolicySettings struct {
	// Feed is what is served. Required.
	Feed *policyfeed.Feed
	// Authenticators establish who calls. Join tokens and expired certificates are
	// for getting certificates: they should not be among them. Required.
	Authenticators authn.Chain
	// Readers see everything.
	Readers []spiffeid.ID
	// Recheck is how often the caller of a watch is authenticated anew; half a
	// minute if zero.
	Recheck time.Duration
	// Watches is how many watches may be open, and WatchesPerCaller how many of one
	// caller; 20,000 and 8 if zero.
	Watches, WatchesPerCaller int
	// SendLimit is how long a watch waits for its caller to take a part of an
	// update, before it ends; half a minute if zero.
	SendLimit time.Duration
	// Observe hears of each call when it has ended. May be nil.
	Observe func(Call)
}

const defaultRecheck = 30 * time.Second

// policyServer serves the policy service.
type policyServer struct {
	citadelv1.UnimplementedPolicyServiceServer
	*Server
	set    PolicySettings
	open   *streams
	limits *limiter // apart from that of certificates: who watches too often can still renew
}

func newPolicyServer(s *Server, set PolicySettings) *policyServer {
	if set.Recheck == 0 {
		set.Recheck = defaultRecheck
	}
	set.Watches, set.WatchesPerCaller = cmp.Or(set.Watches, defaultWatches), cmp.Or(set.WatchesPerCaller, defaultWatchesPerCaller)
	set.SendLimit = cmp.Or(set.SendLimit, defaultSendLimit)
	if set.Observe == nil {
		set.Observe = func(Call) {}
	}
	return &policyServer{Server: s, set: set, open: &streams{all: set.Watches, each: set.WatchesPerCaller}, limits: newLimiter(s.set.Limits)}
}

// policyCaller is an authenticated caller of the policy service.
type policyCaller struct {
	id        spiffeid.ID
	key       string // of limits
	namespace string
	reader    bool
}

// answer runs a call: authenticated, limited, observed, and with its panic kept
// to itself.
func (s *policyServer) answer(ctx context.Context, method string, do func(policyCaller) error) (err error) {
	call := Call{Method: method}
	begin := time.Now()
	defer func() {
		if p := recover(); p != nil {
			err = panicked(p)
		}
		if _, sent := status.FromError(err); !sent && ctx.Err() == nil { // else the connection ended
			call.Err, call.Limited, call.Ref = err, isLimit(err), newRef()
			err = statusOf(err, call.Ref)
			call.Code = status.Code(err)
		}
		call.Took = time.Since(begin)
		s.set.Observe(call)
	}()
	caller, err := s.admit(ctx, begin, &call)
	if err != nil {
		return err
	}
	return do(caller)
}

// admit authenticates a call and counts it.
func (s *policyServer) admit(ctx context.Context, now time.Time, call *Call) (policyCaller, error) {
	leave, err := s.limits.enter()
	if err != nil {
		return policyCaller{}, err
	}
	defer leave()
	_, call.Address = peerOf(ctx)
	id, tried, err := s.authenticate(ctx, now)
	call.Tried, call.Caller, call.Identity = tried, id.Caller.ID(), id.Caller.ID()
	if err != nil {
		return policyCaller{}, err
	}
	if err := s.limits.allow(now, id); err != nil {
		return policyCaller{}, err
	}
	caller, err := s.callerOf(id.Caller.ID())
	caller.key = keyOf(id)
	return caller, err
}

// authenticate establishes who calls, and that nobody has banned him.
func (s *policyServer) authenticate(ctx context.Context, now time.Time) (authn.Identity, []authn.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, requestLimit)
	defer cancel()
	handshake, _ := peerOf(ctx)
	id, tried, err := s.set.Authenticators.Authenticate(ctx, now, authn.Request{Client: handshake.client, ClientErr: handshake.clientErr, Bearer: bearer(ctx), Origin: callOrigin(ctx)})
	if err == nil {
		err = s.Server.set.Authority.CheckCaller(id.Caller)
	}
	return id, tried, err
}

// callerOf finds what a caller may see: service accounts see something, others
// nothing.
func (s *policyServer) callerOf(id spiffeid.ID) (policyCaller, error) {
	parts := strings.Split(id.Path(), "/") // "", ns, NAMESPACE, sa, NAME
	if len(parts) == 5 {
		if same, err := ca.ServiceAccountID(s.Server.set.Authority.TrustDomain(), parts[2], parts[4]); err == nil && same == id {
			c := policyCaller{id: id, namespace: parts[2]}
			for _, reader := range s.set.Readers {
				c.reader = c.reader || reader == id
			}
			return c, nil
		}
	}
	return policyCaller{}, &ca.Error{Class: ca.Denied, Reason: fmt.Sprintf("%s is no service account: policy is told to those of a namespace", id)}
}

// maxReasons is how many problems a refusal names.
const maxReasons = 5

// known is the state of now, or that there is none; readers are told why.
func (s *policyServer) known(caller policyCaller) (*policyfeed.State, error) {
	state := s.set.Feed.State()
	if state.Snapshot == nil {
		reason := "policy has not been read yet"
		if problems := state.Problems(); caller.reader && len(problems) > 0 {
			reason += ": " + strings.Join(problems[:min(len(problems), maxReasons)], "; ")
		}
		return nil, &ca.Error{Class: ca.CANotReady, Reason: reason}
	}
	return state, nil
}
