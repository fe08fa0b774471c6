package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"citadel/ca/authn"
	"citadel/ca/caclient"
	"citadel/cmd/citadelctl/inspect"
	"citadel/secretcontroller"
)

// What a token may be: long enough to be carried to a host, and no standing
// invitation.
const (
	shortestToken = time.Minute
	longestToken  = 30 * 24 * time.Hour
	mostUses      = 1000
)

// What a host is told to do with a token.
const (
	hostTokenFile = "/etc/credstore/citadel-join-token" // where the unit looks
	hostUnit      = "istio-auth-node-agent.service"
)

// createdToken is the form for programs. It holds the secret.
type createdToken struct {
	meta
	joinToken
	Address string `json:"address"`
	// Token is what the host is given.
	Token string `json:"token"`
}

// createFlags are what token create is told.
type createFlags struct {
	output
	siteFlags
	namespace, account string
	ttl                time.Duration
	uses               int
	address, rootCert  string
}

func newTokenCreateCommand() *cobra.Command {
	f := &createFlags{}
	cmd := &cobra.Command{
		Use:   "create --namespace NAMESPACE --service-account NAME",
		Short: "Make a token by which a host joins as a service account",
		Long: `create makes a token by which hosts outside the cluster join as a service account, and prints it in
one line: citadel's address, the fingerprints of its roots, and a secret, of which the cluster
keeps a hash alone. It is shown this once. Whoever has it can join: hand it over as you would
a password, and in no command line. With -o json or -o yaml it comes with its ID and its end.

The service account need not exist in the cluster. Hosts dial the address of --address; without
it, that of the load balancer of Service ` + citadelService + `. They believe whoever answers there only
when its certificate ends at one of the roots, which are read of ConfigMap ` + secretcontroller.RootsConfigMap + `
of citadel's namespace (else of ` + secretcontroller.LegacyConfigMap + `), or of --root-cert where citadel serves a
certificate of somebody else's (--grpc-cert-file).

You need the right to create Secrets in citadel's namespace. Of a citadel without Kubernetes,
--state-dir names the folder, which you must own, or be root; --address must be given, and the
root is that of the folder unless --root-cert is given.`,
		Example: `  citadelctl token create --namespace vm --service-account web
  citadelctl token create -n vm --service-account web --ttl 24h --uses 20 --address ca.example.org:8060
  citadelctl token create -n vm --service-account web --state-dir /var/lib/citadel --address ca.example.org:8060
  citadelctl token create -n vm --service-account web | ssh root@web-1 install -D -m 0600 /dev/stdin ` + hostTokenFile,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := plainFlags(cmd)
	flags.StringVarP(&f.namespace, "namespace", "n", "", "`namespace` of the service account")
	flags.StringVar(&f.account, "service-account", "", "`name` of the service account that hosts become")
	flags.DurationVar(&f.ttl, "ttl", time.Hour, "how long hosts may join by it: 1m to 720h (30 days)")
	flags.IntVar(&f.uses, "uses", 1, "how many hosts may join by it: 1 to 1000")
	flags.StringVar(&f.address, "address", "", "`HOST:PORT` at which hosts reach citadel; empty: the load balancer's of Service "+citadelService)
	flags.StringVar(&f.rootCert, "root-cert", "", "`file` of the roots that citadel's serving certificate ends at, PEM; empty: those in force")
	f.output.addTo(flags)
	f.siteFlags.addTo(flags)
	f.output.complete(cmd)
	return cmd
}

// problems are those of the flags.
func (f *createFlags) problems() error {
	problems := []error{f.output.validate(), checkName("namespace", f.namespace, validation.IsDNS1123Label),
		checkName("service-account", f.account, validation.IsDNS1123Subdomain)}
	if f.ttl < shortestToken || f.ttl > longestToken {
		problems = append(problems, fmt.Errorf("--ttl %s must be between 1m and 720h (30 days)", f.ttl))
	}
	if f.uses < 1 || f.uses > mostUses {
		problems = append(problems, fmt.Errorf("--uses %d must be between 1 and %d", f.uses, mostUses))
	}
	if f.address != "" {
		if err := checkAddress(f.address); err != nil {
			problems = append(problems, fmt.Errorf("--address: %w", err))
		}
	}
	return errors.Join(problems...)
}

func (f *createFlags) run(cmd *cobra.Command) error {
	s, err := f.siteFlags.prepare(cmd, f.problems())
	if err != nil {
		return err
	}
	join, td, err := f.invitation(cmd, s)
	if err != nil {
		return err
	}
	warnings, err := s.doubts(cmd.Context(), f.namespace, f.account)
	if err != nil {
		return err
	}
	now := s.now()
	token, bearer, err := authn.NewJoinToken(now, f.namespace, f.account, f.ttl, f.uses)
	if err != nil {
		return err
	}
	join.Bearer = bearer
	created := createdToken{newMeta("JoinToken", now), newJoinToken(now, td, token), join.Address, join.Encode()}
	if _, err := caclient.ParseJoin(created.Token); err != nil {
		return fmt.Errorf("no host could read the token: it %w", err)
	}
	if ban := s.banned(cmd.Context(), created.Identity); ban != "" {
		warnings = append(warnings, ban)
	}
	if err := s.tokens.Create(cmd.Context(), token); err != nil {
		return s.explain(err, "create")
	}
	err = f.output.write(cmd.OutOrStdout(), created, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, created.Token)
		return err
	})
	if err != nil { // nobody has seen it
		return errors.Join(err, s.explain(s.tokens.Revoke(cmd.Context(), token.ID), "delete"))
	}
	tell(cmd.ErrOrStderr(), created, warnings)
	return nil
}

// invitation is all of the token but its secret, and the trust domain, which
// may not be known.
func (f *createFlags) invitation(cmd *cobra.Command, s *site) (caclient.Join, spiffeid.TrustDomain, error) {
	join := caclient.Join{Address: f.address}
	roots, err := f.roots(cmd.Context(), s)
	if err != nil {
		return join, spiffeid.TrustDomain{}, err
	}
	for _, root := range roots.certs {
		join.Fingerprints = append(join.Fingerprints, caclient.Fingerprint(root))
	}
	if join.Address == "" {
		if join.Address, err = s.address(cmd.Context()); err != nil {
			return join, spiffeid.TrustDomain{}, err
		}
	}
	td, err := s.domain(cmd, roots)
	return join, td, err
}

// roots are those that the server's certificate ends at.
func (f *createFlags) roots(ctx context.Context, s *site) (authorityRoots, error) {
	given, err := readRoots(f.rootCert)
	if err != nil || len(given.Certs) > 0 {
		return authorityRoots{given.From, given.Certs}, err
	}
	return s.roots(ctx)
}

// someRoots are those in force, of which there is at least one.
func (c *cluster) someRoots(ctx context.Context, storage string) (authorityRoots, error) {
	const remedy = "give the roots by --root-cert FILE"
	roots, err := c.rootsInForce(ctx, storage)
	if err != nil {
		return roots, fmt.Errorf("%w; or %s", err, remedy)
	}
	if len(roots.certs) == 0 {
		if err := c.checkNamespace(ctx, storage); err != nil {
			return roots, err
		}
		return roots, fmt.Errorf("no roots are published in namespace %s (ConfigMaps %s and %s), so no host could know citadel: is citadel there, and does it run? See: citadelctl status; or %s",
			storage, secretcontroller.RootsConfigMap, secretcontroller.LegacyConfigMap, remedy)
	}
	return roots, nil
}

// doubts are what may be meant, or not. What may not be looked at raises none.
func (c *cluster) doubts(ctx context.Context, namespace, account string) ([]string, error) {
	a := access{verb: "get", resource: "serviceaccounts", namespace: namespace, name: account}
	_, err := c.client.CoreV1().ServiceAccounts(namespace).Get(ctx, account, metav1.GetOptions{})
	switch {
	case apierrors.IsForbidden(err) || err == nil:
		return nil, nil
	case !apierrors.IsNotFound(err):
		return nil, c.explain(err, a)
	}
	what := "service account " + namespace + "/" + account + " does not"
	if err := c.checkNamespace(ctx, namespace); err != nil {
		if coded, ok := errors.AsType[codedError](err); !ok || coded.code != exitNotFound {
			return nil, err
		}
		what = "neither namespace " + namespace + " nor its service account " + account + " does"
	}
	return []string{what + " exist in this cluster: a host's identity need not; if it was meant to, revoke the token"}, nil
}

// banned says whether the identity, to which a token then is of no use, is
// banned. Who may not see that is not told.
func (s *site) banned(ctx context.Context, identity string) string {
	bans, err := s.bans(ctx)
	if err != nil {
		return ""
	}
	for whom, ban := range bans {
		if canonical(whom) == identity {
			return fmt.Sprintf("%s is banned%s: nobody joins as it until: citadelctl identity unban %s", identity, because(ban.Reason), identity)
		}
	}
	return ""
}

// tell says what the token is for. It holds no part of the secret.
func tell(stderr io.Writer, t createdToken, warnings []string) {
	for _, w := range warnings {
		warn(stderr, w)
	}
	fmt.Fprintf(stderr, `Join token %s lets %s join as %s, at %s, until %s (for %s).
It is secret, and is not shown again. On the host, as root:
  install -D -m 0600 /dev/stdin %s    # paste it, then press Ctrl-D
  systemctl enable --now %s
Who has joined: citadelctl token list. To take it back: citadelctl token revoke %s
`, t.ID, count(t.Uses, "host"), t.who(), t.Address, moment(t.Expires), inspect.Span(t.Expires.Sub(t.Created)), hostTokenFile, hostUnit, t.ID)
}

// warn tells of what may not be meant.
func warn(stderr io.Writer, text string) {
	fmt.Fprintf(stderr, "citadelctl: warning: %s\n", printable(text))
}
