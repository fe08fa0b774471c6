package main

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"citadel/ca/authn"
	"citadel/ca/caclient"
)

// revokeFlags are what token revoke is told.
type revokeFlags struct {
	siteFlags
	file string
}

func newTokenRevokeCommand() *cobra.Command {
	f := &revokeFlags{}
	cmd := &cobra.Command{
		Use:   "revoke [ID... | -]",
		Short: "Take join tokens back: nobody joins by them any more",
		Long: `revoke takes join tokens back. An ID is of 'citadelctl token list'. For who has the token and not
its ID, --token-file and - (standard input) read whole tokens, or IDs; on the command line, where
others see it, a whole token is refused.

Nobody joins by a revoked token from then on. Hosts that joined by it before keep their
certificates and renew them: to stop these too, ban them, by 'citadelctl identity ban'.

It exits with 3 when there is no such token, whatever became of the others. You need the right
to delete Secrets in citadel's namespace.`,
		Example: `  citadelctl token revoke 0123456789
  citadelctl token revoke --token-file leaked-token
  ssh web-1 cat token | citadelctl token revoke -`,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args) },
	}
	flags := plainFlags(cmd)
	flags.StringVar(&f.file, "token-file", "", "`file` with tokens or their IDs; -: standard input")
	f.siteFlags.addTo(flags)
	return cmd
}

func (f *revokeFlags) run(cmd *cobra.Command, args []string) error {
	var named []string
	var problems []error
	for _, arg := range args {
		id, whole, err := tokenID(arg)
		switch {
		case arg == "-":
			continue
		case whole:
			err = fmt.Errorf("a whole token is a secret, and others see command lines: give its ID, %s, or the token by --token-file or -", id)
		}
		named, problems = append(named, id), append(problems, err)
	}
	if len(args) == 0 && f.file == "" {
		problems = append(problems, errors.New("give the ID of a token, -, or --token-file FILE"))
	}
	s, err := f.prepare(cmd, problems...)
	if err != nil {
		return err
	}
	read, err := f.read(cmd, slices.Contains(args, "-"))
	if err != nil {
		return err
	}
	return revoke(cmd, s, append(named, read...))
}

// read is the IDs of the tokens in the file and on standard input.
func (f *revokeFlags) read(cmd *cobra.Command, stdin bool) ([]string, error) {
	var ids []string
	if f.file != "" && f.file != "-" {
		text, err := readFile(f.file)
		if err != nil {
			return nil, fmt.Errorf("read the tokens of --token-file: %w", err)
		}
		if ids, err = tokenIDs(f.file, text); err != nil {
			return nil, err
		}
	}
	if !stdin && f.file != "-" {
		return ids, nil
	}
	const name = "standard input"
	text, err := readInput(cmd.Context(), cmd.InOrStdin(), name)
	if err != nil {
		return nil, err
	}
	more, err := tokenIDs(name, text)
	return append(ids, more...), err
}

// tokenIDs are those of the tokens of a text. Errors hold nothing of it.
func tokenIDs(name string, text []byte) ([]string, error) {
	var ids []string
	for n, word := range strings.Fields(string(text)) {
		id, _, err := tokenID(word)
		if err != nil {
			return nil, fmt.Errorf("%s: word %d is neither a join token nor its ID: copy the whole of it, in one line", name, n+1)
		}
		ids = append(ids, id)
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("%s is empty: it must hold a join token or its ID", name)
	}
	return ids, nil
}

var (
	tokenIDText = regexp.MustCompile(`^[0-9a-f]{10}$`)
	bearerText  = regexp.MustCompile(`^citadel-join\.([0-9a-f]{10})\.`)
)

// longestEcho is of what is surely no secret.
const longestEcho = 20

// tokenID is the ID that a text is, or that a whole token holds. Its error
// quotes what cannot be a secret alone.
func tokenID(text string) (id string, whole bool, err error) {
	if tokenIDText.MatchString(text) {
		return text, false, nil
	}
	bearer := text
	if join, err := caclient.ParseJoin(text); err == nil {
		bearer = join.Bearer
	}
	if parts := bearerText.FindStringSubmatch(bearer); parts != nil {
		return parts[1], true, nil
	}
	if len(text) > longestEcho {
		return "", false, errors.New("an argument is no ID of a join token, but may be a secret, and is not repeated: an ID has 10 hexadecimal digits; see: citadelctl token list")
	}
	return "", false, fmt.Errorf("%q is no ID of a join token, which has 10 hexadecimal digits: see: citadelctl token list", text)
}

// revoke takes back all that it can.
func revoke(cmd *cobra.Command, s *site, ids []string) error {
	slices.Sort(ids)
	var missing []error
	for _, id := range slices.Compact(ids) {
		seen := readToken(cmd, s.tokens, id)
		err := s.tokens.Revoke(cmd.Context(), id)
		switch {
		case errors.Is(err, authn.ErrNoJoinToken):
			missing = append(missing, fmt.Errorf("there is no join token %s %s: see: citadelctl token list", id, s.where))
		case err != nil:
			return errors.Join(s.explain(err, "delete"), errors.Join(missing...))
		default:
			fmt.Fprintf(cmd.ErrOrStderr(), "Revoked join token %s: nobody joins by it any more.%s\n", id, aftermath(seen))
		}
	}
	if len(missing) > 0 {
		return codedError{exitNotFound, errors.Join(missing...)}
	}
	return nil
}

// readToken looks at a token that is about to go, for the message. Where it
// cannot, the token is nobody's.
func readToken(cmd *cobra.Command, store tokenStore, id string) (seen authn.JoinToken) {
	_ = store.Use(cmd.Context(), id, func(t *authn.JoinToken) (bool, error) {
		seen = *t
		return false, nil
	})
	return seen
}

// aftermath is what a revoked token leaves.
func aftermath(t authn.JoinToken) string {
	whom, joined := "NAMESPACE/SERVICE_ACCOUNT", "Hosts that joined by it keep their certificates, and renew them"
	switch {
	case t.ID == "":
	case len(t.Keys) == 0:
		return " Nobody had joined by it."
	case len(t.Keys) == 1:
		whom, joined = t.Namespace+"/"+t.ServiceAccount, "The host that joined by it keeps its certificate, and renews it"
	default:
		whom, joined = t.Namespace+"/"+t.ServiceAccount, fmt.Sprintf("The %d hosts that joined by it keep their certificates, and renew them", len(t.Keys))
	}
	return " " + joined + "; to stop that: citadelctl identity ban " + whom
}
