package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"citadel/ca/kube"
)

func newUnbanCommand() *cobra.Command {
	f := &siteFlags{}
	cmd := &cobra.Command{
		Use:   "unban WHOM",
		Short: "Lift a ban",
		Long: `unban takes WHOM, written as for 'citadelctl identity ban' or as 'citadelctl identity list' shows it,
from the list of bans. Within seconds every replica issues again, and a Secret that was not
renewed is made anew. Of whom is not banned it says so, and exits with 0.`,
		Example: `  citadelctl identity unban vm/web
  citadelctl identity unban spiffe://cluster.local/ns/vm/sa/web`,
		Args: oneWhom,
		RunE: func(cmd *cobra.Command, args []string) error { return f.unban(cmd, args[0]) },
	}
	f.addTo(plainFlags(cmd))
	return cmd
}

func (f *siteFlags) unban(cmd *cobra.Command, text string) error {
	who, problem := parseWhom(text)
	if !strings.Contains(text, "/") && text != "" {
		problem = nil // the list may hold what nobody would write
	}
	s, err := f.prepare(cmd, problem)
	if err != nil {
		return err
	}
	key := canonical(text)
	if who.account != "" {
		td, err := s.tryDomain(cmd)
		if err == nil {
			who, err = who.in(td)
		}
		if err != nil {
			return err
		}
		key = who.key()
	}
	var did string
	err = s.editBans(cmd.Context(), func(list kube.BanList) (err error) {
		did, err = unban(list, text, key)
		return err
	})
	if err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), printable(did))
	}
	return err
}

// unban takes whom the key is of from the list, however it is written there,
// and what is written there just so, and says what it did.
func unban(list kube.BanList, text, key string) (string, error) {
	did, err := key+" is not banned: nothing is changed.", errUnchanged
	for entry, old := range list {
		whom := key
		switch {
		case canonical(entry) == key:
		case entry == text:
			whom = entry
		default:
			continue
		}
		delete(list, entry)
		did, err = fmt.Sprintf("Lifted the ban of %s%s%s: within seconds every replica issues to it again.", whom, since(old), because(old.Reason)), nil
	}
	return did, err
}
