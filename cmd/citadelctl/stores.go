package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca"
	"citadel/ca/authn"
	"citadel/ca/kube"
	"citadel/ca/statedir"
	"citadel/cmd/citadelctl/survey"
)

// site is a citadel to be told something, and where it keeps what it is told:
// in a cluster, or in the directory of its --state-dir. Errors of its functions
// say what to do.
type site struct {
	where   string // for messages
	now     func() time.Time
	tokens  tokenStore
	explain func(error, string) error // of what a token was to be done with: a verb

	bans     func(context.Context) (ca.BanList, error)
	editBans func(context.Context, func(ca.BanList) error) error

	// exists is nil, or why nothing is there at all.
	exists func(context.Context) error
	// roots are those that citadel's serving certificate ends at; there is at least
	// one.
	roots   func(context.Context) (authorityRoots, error)
	address func(context.Context) (string, error)
	// domain is the trust domain, given the roots, or zero where it is not known.
	domain func(*cobra.Command, authorityRoots) (spiffeid.TrustDomain, error)
	// tryDomain is domain for those who can do without.
	tryDomain func(*cobra.Command) (spiffeid.TrustDomain, error)
	// doubts are what may be meant of a service account, or not.
	doubts func(ctx context.Context, namespace, account string) ([]string, error)
}

// tokenStore keeps join tokens.
type tokenStore interface {
	authn.JoinTokens
	Create(context.Context, authn.JoinToken) error
	List(context.Context) ([]authn.JoinToken, error)
	Revoke(ctx context.Context, id string) error
}

// cluster is a citadel in one.
func (f *siteFlags) cluster(c *cluster) *site {
	return &site{
		where:  "in namespace " + f.storage,
		now:    c.clock.now,
		tokens: kube.JoinTokens{Client: c.client, Namespace: f.storage},
		explain: func(err error, verb string) error {
			return c.explain(err, access{verb: verb, resource: "secrets", namespace: f.storage})
		},
		bans: func(ctx context.Context) (ca.BanList, error) {
			list, err := kube.ReadBans(ctx, c.client, f.storage)
			return list, c.explain(err, access{verb: "get", resource: "configmaps", namespace: f.storage, name: kube.BansConfigMap})
		},
		editBans:  func(ctx context.Context, edit func(ca.BanList) error) error { return c.editBans(ctx, f.storage, edit) },
		exists:    func(ctx context.Context) error { return c.checkNamespace(ctx, f.storage) },
		roots:     func(ctx context.Context) (authorityRoots, error) { return c.someRoots(ctx, f.storage) },
		address:   func(ctx context.Context) (string, error) { return c.address(ctx, f.storage) },
		domain:    func(cmd *cobra.Command, r authorityRoots) (spiffeid.TrustDomain, error) { return f.domain(cmd, c, r) },
		tryDomain: func(cmd *cobra.Command) (spiffeid.TrustDomain, error) { return f.tryDomain(cmd, c) },
		doubts:    c.doubts,
	}
}

// directory is a citadel with one.
func (f *siteFlags) directory(dir *statedir.Dir) *site {
	roots := func(context.Context) (authorityRoots, error) {
		certs, err := dir.Roots()
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w: start citadel, which makes it; or, where citadel signs with the files of its --signing-cert, give its roots by --root-cert FILE", err)
		}
		return authorityRoots{dir.Path("ca-cert.pem"), certs}, fileError(err)
	}
	domain := func(_ *cobra.Command, r authorityRoots) (spiffeid.TrustDomain, error) {
		served, err := dir.TrustDomain()
		switch {
		case err != nil:
			return served, fileError(err)
		case served.IsZero() && !f.td.IsZero():
			return f.td, nil
		case served.IsZero(): // citadel has not been started since it says so
			return survey.NewBundle(r.from, r.certs).TrustDomain(), nil
		case !f.td.IsZero() && f.td != served:
			return served, codedError{exitUsage, fmt.Errorf("--%s %s is not the trust domain of citadel in %s, which serves %s: leave the flag out", trustDomainFlag, f.td, f.stateDir, served)}
		}
		return served, nil
	}
	return &site{
		where:   "in " + f.stateDir,
		now:     time.Now,
		tokens:  dir.JoinTokens(),
		explain: func(err error, _ string) error { return fileError(err) },
		bans: func(ctx context.Context) (ca.BanList, error) {
			list, err := dir.ReadBans(ctx)
			return list, fileError(err)
		},
		editBans: func(ctx context.Context, edit func(ca.BanList) error) error {
			return fileError(unlessUnchanged(dir.EditBans(ctx, checked(edit))))
		},
		exists: func(context.Context) error { return nil },
		roots:  roots,
		address: func(context.Context) (string, error) {
			return "", codedError{exitUsage, fmt.Errorf("nothing says where hosts reach citadel: give --address HOST:PORT, of its port %d", apiPort)}
		},
		domain: domain,
		tryDomain: func(cmd *cobra.Command) (spiffeid.TrustDomain, error) {
			r, _ := roots(cmd.Context()) // what may not be read tells nothing
			return domain(cmd, r)
		},
		doubts: func(context.Context, string, string) ([]string, error) { return nil, nil },
	}
}
