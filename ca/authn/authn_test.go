package authn

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
)

type fixed struct {
	kind string
	err  error
}

func (f fixed) Kind() string { return f.kind }

func (f fixed) Authenticate(context.Context, time.Time, Request) (Identity, error) {
	if f.err != nil {
		return Identity{}, f.err
	}
	return Identity{Caller: ca.NewCaller(spiffeid.RequireFromString("spiffe://cluster.local/"+f.kind), f.kind, "")}, nil
}

func TestChain(t *testing.T) {
	none, wrong, down := fixed{"none", ErrNoProof}, fixed{"wrong", errors.New("broken seal")}, fixed{"down", &Unavailable{errors.New("no route")}}
	for name, c := range map[string]struct {
		chain  Chain
		bearer string
		who    string
		tried  int
		class  ca.Class
		text   string
	}{
		"the first that succeeds": {Chain{none, wrong, down, fixed{kind: "good"}, fixed{kind: "later"}}, "", "good", 3, "", ""},
		"nothing given":           {Chain{none, none}, "", "", 0, ca.Unauthenticated, "no proof of identity is given; any of these would do: none, none"},
		"wrong":                   {Chain{none, wrong}, "x", "", 1, ca.Unauthenticated, "request authenticate failure: wrong: broken seal"},
		"wrong, and not checked":  {Chain{wrong, down}, "", "", 2, "", "down: no route"},
		"a token of nobody's":     {Chain{none, none}, "x", "", 0, ca.Unauthenticated, "of no kind and no issuer that is accepted here"},
		"nobody to ask":           {nil, "", "", 0, ca.Unauthenticated, "request authenticate failure"},
	} {
		t.Run(name, func(t *testing.T) {
			id, tried, err := c.chain.Authenticate(t.Context(), time.Now(), Request{Bearer: c.bearer})
			if len(tried) != c.tried {
				t.Errorf("tried %v", tried)
			}
			if c.who != "" {
				if err != nil || id.Caller.ID().Path() != "/"+c.who {
					t.Errorf("%s, %v", id.Caller.ID(), err)
				}
				return
			}
			var class ca.Class
			if e, ok := errors.AsType[*ca.Error](err); ok {
				class = e.Class
			}
			_, retry := errors.AsType[*Unavailable](err)
			if err == nil || !strings.Contains(err.Error(), c.text) || class != c.class || retry != (c.class == "") || !id.Caller.ID().IsZero() {
				t.Errorf("%q, class %q: %v", err, class, id)
			}
		})
	}
}
