package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/ca/caclient"
	"citadel/ca/policy"
	"citadel/ca/trust"
	"citadel/cmd/citadelctl/mesh"
)

// citadelFlag names the flag that names a citadel.
const citadelFlag = "citadel"

const serverNameFlag = "citadel-server-name"

// citadelFlags say how to reach a running citadel, and by what to prove oneself.
// Secrets come from files.
type citadelFlags struct {
	citadel, serverName, token, rootCert, cert, key string
}

func (f *citadelFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.citadel, citadelFlag, "", "`HOST:PORT` of a citadel that runs with --policy: ask it in place of the cluster")
	flags.StringVar(&f.rootCert, "citadel-root-cert", "", "`file` of the roots to know the citadel by, PEM")
	flags.StringVar(&f.serverName, serverNameFlag, "", "`name` that the citadel's certificate must bear, whatever the address; without it, "+caclient.DefaultServerName)
	flags.StringVar(&f.token, "citadel-token", "", "`file` of the token to prove oneself by, of one that the citadel's --policy-readers names")
	flags.StringVar(&f.cert, "citadel-cert", "", "`file` of a certificate chain to prove oneself by, PEM")
	flags.StringVar(&f.key, "citadel-key", "", "`file` of its key, PEM")
}

// check reports all that is wrong at once.
func (f *citadelFlags) check() error {
	if f.citadel == "" {
		if f.token+f.rootCert+f.cert+f.key+f.serverName != "" {
			return errors.New("--citadel-token, --citadel-root-cert, --citadel-server-name, --citadel-cert and --citadel-key go with --citadel: give it")
		}
		return nil
	}
	var problems []error
	if _, port, err := net.SplitHostPort(f.citadel); err != nil || port == "" {
		problems = append(problems, fmt.Errorf("--citadel %q: write HOST:PORT, of the port of the CSR API", f.citadel))
	}
	if f.rootCert == "" {
		problems = append(problems, errors.New("--citadel needs --citadel-root-cert FILE: the roots to know it by"))
	}
	if (f.cert == "") != (f.key == "") {
		problems = append(problems, errors.New("--citadel-cert and --citadel-key go together: give both"))
	}
	if (f.token == "") == (f.cert == "") {
		problems = append(problems, errors.New("--citadel needs one proof of who asks: --citadel-token FILE, or --citadel-cert and --citadel-key"))
	}
	return errors.Join(problems...)
}

// config reads the files.
func (f *citadelFlags) config() (caclient.Config, error) {
	cfg := caclient.Config{Address: f.citadel, ServerName: f.serverName}
	roots, err := readFile(f.rootCert)
	if err == nil {
		cfg.Roots, err = trust.ParseCertificates(roots)
	}
	if err != nil {
		return cfg, fmt.Errorf("read the roots of --citadel-root-cert: %w", err)
	}
	if f.token != "" {
		token, err := readFile(f.token)
		if err != nil {
			return cfg, fmt.Errorf("read the token of --citadel-token: %w", err)
		}
		cfg.Token = strings.TrimSpace(string(token))
		return cfg, nil
	}
	chain, err := readFile(f.cert)
	if err != nil {
		return cfg, fmt.Errorf("read the certificate of --citadel-cert: %w", err)
	}
	key, err := readFile(f.key)
	if err != nil {
		return cfg, fmt.Errorf("read the key of --citadel-key: %w", err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return cfg, fmt.Errorf("use --citadel-cert %s with --citadel-key: %w", f.cert, err)
	}
	cfg.Certificate = &pair
	return cfg, nil
}

// fromCitadel asks a citadel for all that it goes by. Its own generation holds
// unless another one was asked for.
func (f *meshFlags) fromCitadel(cmd *cobra.Command, g policy.Generation) (*meshWorld, error) {
	cfg, err := f.citadelFlags.config()
	if err != nil {
		return nil, err
	}
	client, err := caclient.New(cfg)
	if err != nil {
		return nil, codedError{exitUsage, fmt.Errorf("reach citadel %s: %w", f.citadel, err)}
	}
	defer client.Close()
	ctx := cmd.Context()
	if f.timeout > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, f.timeout)
		defer stop()
	}
	all, err := client.ListPolicy(ctx)
	if err != nil {
		return nil, f.citadelError(err)
	}
	if !cmd.Flags().Changed("generation") {
		g = all.Generation
	}
	world := worldOf(g, all.Generation, all.Objects, all.Problems)
	for _, one := range all.Warnings {
		if one.Code != "unread" { // is among the problems
			world.warnings = append(world.warnings, mesh.Warning(one))
		}
	}
	return world, nil
}

// worldOf is a mesh by the rules of g, of what a citadel sent that judges by its own.
func worldOf(g, own policy.Generation, objects []policy.Object, problems []string) *meshWorld {
	world := &meshWorld{World: mesh.NewWorld(g, objects), now: time.Now()}
	judged := world.World
	if g != own {
		judged = mesh.NewWorld(own, objects)
	}
	world.unread = unseen(judged, problems)
	return world
}

// unseen are the problems of a citadel that are not of objects which it has
// sent: those are not valid, and are told with each answer that they concern. The
// world is by the citadel's own generation, by which it has judged.
func unseen(w *mesh.World, problems []string) (unread []unreadKind) {
	told := w.Problems()
	for _, text := range problems {
		if !slices.ContainsFunc(told, func(p policy.Problem) bool { return p.Error() == text }) {
			one := parseProblem(text)
			one.Why = "citadel: " + one.Why
			unread = append(unread, one)
		}
	}
	return unread
}

// What a citadel says of a kind that it does not hear of, and where the name of
// an object is in what it says of one.
var (
	unheard  = regexp.MustCompile(`^([A-Za-z]+(?: istio)?) is not (?:read: (?s:(.*))|heard of\b)`)
	inObject = regexp.MustCompile(`(?:^|[ :])((?:` + strings.Join(kindNames(), "|") + `)(?:/[^\s:/]+){0,2})(: | is )`)
)

func kindNames() (all []string) {
	for kind := policy.KindMeshConfig; kind <= policy.KindDestinationRule; kind++ {
		all = append(all, kind.String())
	}
	return all
}

// parseProblem takes apart a problem of a citadel, which is text for people: the
// kind or object that it is about, and what is said of it, place included.
func parseProblem(text string) unreadKind {
	if m := unheard.FindStringSubmatch(text); m != nil {
		return unreadKind{Kind: m[1], Why: cmp.Or(m[2], strings.TrimPrefix(text, m[1]+" is "))}
	}
	at := inObject.FindStringSubmatchIndex(text)
	if at == nil {
		return unreadKind{Kind: "object", Why: text}
	}
	rest := at[5]
	if text[at[4]:at[5]] != ": " {
		rest = at[4] + 1 // "is" belongs to what is said
	}
	return unreadKind{Kind: text[at[2]:at[3]], Why: text[:at[2]] + text[rest:]}
}

// citadelError says what to do, and sets the exit code.
func (f *citadelFlags) citadelError(err error) error {
	told, is := errors.AsType[*caclient.Error](err)
	if !is || errors.Is(err, context.Canceled) {
		return err
	}
	err = fmt.Errorf("ask citadel %s for what decides about mTLS: %w", f.citadel, err)
	switch told.Kind {
	case caclient.Unreachable:
		return codedError{exitUnreachable, fmt.Errorf("%w: check the address, and that it runs with --policy", err)}
	case caclient.NotTheCA, caclient.Misnamed:
		return codedError{exitUsage, fmt.Errorf("%w: check --citadel, --citadel-root-cert and --citadel-server-name", err)}
	case caclient.NotProven, caclient.Refused:
		return codedError{exitDenied, err}
	}
	return err
}
