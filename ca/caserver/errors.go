package caserver

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"citadel/ca"
	"citadel/ca/authn"
)

// limitError is what a caller gets that asks too much, or at a bad time.
type limitError struct {
	reason string
	retry  time.Duration
}

func (e *limitError) Error() string { return e.reason }

func isLimit(err error) bool {
	_, ok := errors.AsType[*limitError](err)
	return ok
}

// panicked is what became of a call that broke. The stack is for the log.
func panicked(p any) error { return fmt.Errorf("the call panicked: %v\n%s", p, debug.Stack()) }

// newRef finds a call again in the log.
func newRef() string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// domain is where the reasons in error details come from.
const domain = "citadel"

// statusOf is what a client is told: a code that says whether trying again can
// help, a sentence, and a reference. Causes stay here.
func statusOf(err error, ref string) error {
	code, class, sentence, retry := verdict(err)
	details := []protoadapt.MessageV1{protoadapt.MessageV1Of(&errdetails.ErrorInfo{Reason: class, Domain: domain, Metadata: map[string]string{"ref": ref}})}
	if retry > 0 {
		details = append(details, protoadapt.MessageV1Of(&errdetails.RetryInfo{RetryDelay: durationpb.New(retry)}))
	}
	st := status.New(code, fmt.Sprintf("%s: %s (ref %s)", class, sentence, ref))
	if detailed, err := st.WithDetails(details...); err == nil {
		st = detailed
	}
	return st.Err()
}

// codeOf has the code of each class (compatibility 4.4, 6.3: proxies retry
// Internal, Unavailable and ResourceExhausted, and nothing else here).
var codeOf = map[ca.Class]codes.Code{
	ca.CANotReady:      codes.Unavailable,
	ca.CSRError:        codes.InvalidArgument,
	ca.TTLError:        codes.InvalidArgument,
	ca.CertGenError:    codes.Internal,
	ca.Unauthenticated: codes.Unauthenticated,
	ca.Denied:          codes.PermissionDenied,
}

func verdict(err error) (code codes.Code, class, sentence string, retry time.Duration) {
	if e, ok := errors.AsType[*limitError](err); ok {
		return codes.ResourceExhausted, "RATE_LIMITED", e.reason, e.retry
	}
	if e, ok := errors.AsType[*ca.Error](err); ok {
		return codeOf[e.Class], string(e.Class), e.Reason, 0
	}
	if errors.Is(err, authn.ErrMayNotReview) {
		return codes.Unavailable, "NOT_CHECKED", authn.ErrMayNotReview.Error() + ", without which it takes no Kubernetes tokens: " +
			"have it given to its service account, or show a client certificate or another token", 30 * time.Second
	}
	if _, ok := errors.AsType[*authn.Unavailable](err); ok {
		return codes.Unavailable, "NOT_CHECKED", "who you are cannot be checked now: try again", time.Second
	}
	switch {
	case errors.Is(err, context.Canceled):
		return codes.Canceled, "CANCELED", "the call was cancelled", 0
	case errors.Is(err, context.DeadlineExceeded):
		return codes.DeadlineExceeded, "DEADLINE", "the call took too long", 0
	}
	return codes.Internal, "INTERNAL", "the server failed", 0
}
