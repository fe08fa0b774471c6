package main

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/authn"
)

func newTokenCommand() *cobra.Command {
	cmd := newGroup("token", "Let hosts outside the cluster join, by tokens", newTokenCreateCommand(), newTokenListCommand(), newTokenRevokeCommand())
	cmd.Example = `  citadelctl token create --namespace vm --service-account web
  citadelctl token list
  citadelctl token revoke 0123456789`
	return cmd
}

// joinToken is what may be told of a token to everybody.
type joinToken struct {
	ID             string `json:"id"`
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
	// Identity is absent where the trust domain is not known.
	Identity string `json:"identity,omitempty"`
	// Uses is how many hosts may join in all, UsesLeft how many more.
	Uses     int        `json:"uses"`
	UsesLeft int        `json:"usesLeft"`
	State    tokenState `json:"state"`
	Created  time.Time  `json:"created"`
	Expires  time.Time  `json:"expires"`
}

// tokenState says whether another host may join.
type tokenState string

const (
	tokenUsable  tokenState = "usable"
	tokenUsed    tokenState = "used"
	tokenExpired tokenState = "expired"
)

func newJoinToken(now time.Time, td spiffeid.TrustDomain, t authn.JoinToken) joinToken {
	told := joinToken{ID: t.ID, Namespace: t.Namespace, ServiceAccount: t.ServiceAccount, Uses: t.Uses, UsesLeft: max(t.Uses-len(t.Keys), 0),
		State: tokenUsable, Created: t.Created.UTC(), Expires: t.Expires.UTC()}
	switch {
	case !now.Before(t.Expires):
		told.State = tokenExpired
	case told.UsesLeft == 0:
		told.State = tokenUsed
	}
	if id, err := ca.ServiceAccountID(td, t.Namespace, t.ServiceAccount); err == nil && !td.IsZero() {
		told.Identity = id.String()
	}
	return told
}

// who is how messages call the identity.
func (t joinToken) who() string {
	if t.Identity == "" {
		return "service account " + t.account()
	}
	return t.Identity
}

// account is the identity's short form.
func (t joinToken) account() string { return t.Namespace + "/" + t.ServiceAccount }
