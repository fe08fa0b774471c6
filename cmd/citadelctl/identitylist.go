package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"citadel/ca/kube"
)

// bannedItem is one ban.
type bannedItem struct {
	// Whom is a SPIFFE ID or a serial number.
	Whom   string  `json:"whom"`
	Kind   banKind `json:"kind"`
	Reason string  `json:"reason,omitempty"`
	// Since is absent where whoever wrote the list by hand left it out.
	Since time.Time `json:"since,omitzero"`
}

// banKind says what Whom is.
type banKind string

const (
	banOfIdentity banKind = "identity"
	banOfSerial   banKind = "serial"
	banUnreadable banKind = "unreadable" // and so is the list, to citadel
)

// banDocument is the form for programs.
type banDocument struct {
	meta
	Items []bannedItem `json:"items"`
}

// banListFlags are what identity list is told.
type banListFlags struct {
	output
	siteFlags
}

func newBanListCommand() *cobra.Command {
	f := &banListFlags{}
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List whom nothing more is issued to, since when and why",
		Long: `list shows the identities and certificates that are banned.

You need the right to get ConfigMap ` + kube.BansConfigMap + ` in citadel's namespace.`,
		Example: `  citadelctl identity list
  citadelctl identity list -o json`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := plainFlags(cmd)
	f.output.addTo(flags)
	f.siteFlags.addTo(flags)
	f.output.complete(cmd)
	return cmd
}

func (f *banListFlags) run(cmd *cobra.Command) error {
	s, err := f.siteFlags.prepare(cmd, f.output.validate())
	if err != nil {
		return err
	}
	list, err := s.bans(cmd.Context())
	if err != nil {
		return err
	}
	if len(list) == 0 {
		if err := s.exists(cmd.Context()); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "Nobody is banned by citadel %s.\n", s.where)
	}
	now, items := s.now(), banItems(list)
	err = f.output.write(cmd.OutOrStdout(), banDocument{newMeta("BanList", now), items}, func(w io.Writer) error {
		return writeBans(w, now, items)
	})
	return cmp.Or(err, readable(list))
}

func banItems(list kube.BanList) []bannedItem {
	items := []bannedItem{}
	for whom, ban := range list {
		kind := banOfSerial
		if _, err := (kube.BanList{whom: ban}).Bans(); err != nil {
			kind = banUnreadable
		} else if strings.Contains(whom, "://") {
			kind = banOfIdentity
		}
		items = append(items, bannedItem{whom, kind, ban.Reason, ban.Since.UTC()})
	}
	slices.SortFunc(items, func(a, b bannedItem) int { return cmp.Compare(a.Whom, b.Whom) })
	return items
}

// writeBans writes a row for each ban, and nothing where there is none.
func writeBans(w io.Writer, now time.Time, items []bannedItem) error {
	if len(items) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "WHOM\tBANNED\tREASON")
	for _, item := range items {
		fmt.Fprintf(t, "%s\t%s\t%s\n", printable(item.Whom), sinceText(now, item.Since), printable(cmp.Or(item.Reason, "-")))
	}
	return t.Flush()
}

func sinceText(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return when(now, t)
}
