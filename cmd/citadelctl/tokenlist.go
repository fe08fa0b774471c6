package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
)

// tokenDocument is the form for programs.
type tokenDocument struct {
	meta
	Items []joinToken `json:"items"`
}

// tokenListFlags are what token list is told.
type tokenListFlags struct {
	output
	siteFlags
}

func newTokenListCommand() *cobra.Command {
	f := &tokenListFlags{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List join tokens: as whom, how often and until when hosts may join",
		Long: `list shows every join token that citadel knows: the identity of those who join by it, how many
more may, and until when. Nothing that it shows lets anybody join. Tokens that expired stay for
a day, so that those who try them are told why they fail.

You need the right to list Secrets in citadel's namespace.`,
		Example: `  citadelctl token list
  citadelctl token list -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := plainFlags(cmd)
	f.output.addTo(flags)
	f.siteFlags.addTo(flags)
	f.output.complete(cmd)
	return cmd
}

func (f *tokenListFlags) run(cmd *cobra.Command) error {
	s, err := f.siteFlags.prepare(cmd, f.output.validate())
	if err != nil {
		return err
	}
	tokens, damaged := s.tokens.List(cmd.Context())
	if damaged != nil && len(tokens) == 0 {
		return s.explain(damaged, "list")
	}
	td, err := s.tryDomain(cmd)
	if err != nil {
		return err
	}
	now := s.now()
	items := []joinToken{}
	for _, t := range tokens {
		items = append(items, newJoinToken(now, td, t))
	}
	slices.SortFunc(items, func(a, b joinToken) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	if len(items) == 0 {
		if err := s.exists(cmd.Context()); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "No join tokens %s.\n", s.where)
	}
	err = f.output.write(cmd.OutOrStdout(), tokenDocument{newMeta("JoinTokenList", now), items}, func(w io.Writer) error {
		return writeTokens(w, now, items)
	})
	return cmp.Or(err, damaged)
}

// writeTokens writes a row for each token, and nothing where there is none.
func writeTokens(w io.Writer, now time.Time, items []joinToken) error {
	if len(items) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "ID\tIDENTITY\tUSES LEFT\tEXPIRES\tCREATED")
	for _, item := range items {
		fmt.Fprintf(t, "%s\t%s\t%d of %d\t%s\t%s\n", printable(item.ID), printable(cmp.Or(item.Identity, item.account())), item.UsesLeft, item.Uses,
			expiry(now, item.Expires), when(now, item.Created))
	}
	return t.Flush()
}
