package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"citadel/ca/kube"
)

// banFlags are what identity ban is told.
type banFlags struct {
	siteFlags
	reason string
}

// longestReason is how many characters a reason may have.
const longestReason = 200

func newBanCommand() *cobra.Command {
	f := &banFlags{}
	cmd := &cobra.Command{
		Use:   "ban WHOM",
		Short: "Have nothing more issued to an identity, or to the holder of a certificate",
		Long: `ban has every replica of citadel refuse, within seconds, to issue anything to WHOM:

  spiffe://DOMAIN/ns/NAMESPACE/sa/NAME, or NAMESPACE/NAME for short: an identity, by whatever
      proof it asks. Its Secret in the cluster is not renewed either.
  a certificate's serial number, in hexadecimal, with colons or without: whoever asks by that
      certificate. Its identity can still be had by another proof.

What was issued already is good until it ends: at most for citadel's --max-workload-cert-ttl
(168h). Where that is too long, change what peers trust. The reason is told to those who are
refused, and is in citadel's log. A ban of whom is banned already changes nothing but the reason.`,
		Example: `  citadelctl identity ban vm/web --reason "host web-3 was stolen"
  citadelctl identity ban spiffe://cluster.local/ns/vm/sa/web
  citadelctl identity ban 5F:0A:41:7C:…:9B`,
		Args: oneWhom,
		RunE: func(cmd *cobra.Command, args []string) error { return f.run(cmd, args[0]) },
	}
	flags := plainFlags(cmd)
	flags.StringVar(&f.reason, "reason", "", "why, as `text` of at most 200 characters; who is refused reads it")
	f.siteFlags.addTo(flags)
	return cmd
}

func checkReason(reason string) error {
	switch {
	case !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return !unicode.IsPrint(r) }):
		return errors.New("--reason holds what cannot be printed: write plain text, in one line")
	case utf8.RuneCountInString(reason) > longestReason:
		return fmt.Errorf("--reason has more than %d characters: shorten it", longestReason)
	}
	return nil
}

func (f *banFlags) run(cmd *cobra.Command, text string) error {
	target, problem := parseWhom(text)
	s, err := f.prepare(cmd, problem, checkReason(f.reason))
	if err != nil {
		return err
	}
	td, err := s.tryDomain(cmd)
	if err != nil {
		return err
	}
	if target, err = target.in(td); err != nil {
		return err
	}
	if doubt := target.doubt(td); doubt != "" {
		warn(cmd.ErrOrStderr(), doubt)
	}
	var did string
	err = s.editBans(cmd.Context(), func(list kube.BanList) (err error) {
		did, err = ban(list, target, kube.Ban{Reason: f.reason, Since: s.now().UTC().Truncate(time.Second)})
		return err
	})
	if err == nil {
		fmt.Fprintln(cmd.ErrOrStderr(), printable(did))
	}
	return err
}

// ban adds to the list, and says what it did. A ban that is there stays, but
// for the reason where another one is given.
func ban(list kube.BanList, who whom, b kube.Ban) (string, error) {
	for entry, old := range list {
		if canonical(entry) != who.key() {
			continue
		}
		was := fmt.Sprintf("%s has been banned%s", who, since(old))
		if b.Reason == "" || b.Reason == old.Reason {
			return was + because(old.Reason) + ": nothing is changed.", errUnchanged
		}
		list[entry] = kube.Ban{Reason: b.Reason, Since: old.Since}
		return was + "; the reason is now: " + b.Reason, nil
	}
	list[who.key()] = b
	if who.serial != "" {
		return fmt.Sprintf("Banned %s: within seconds no replica issues anything to who asks by it. It is good until it ends, and its identity can still be had by another proof: where the host joined by a join token that lives, its key may ask with that again, so revoke the token too (citadelctl token list, token revoke).", who), nil
	}
	return fmt.Sprintf("Banned %s: within seconds no replica issues anything to it, and its Secret, where it has one, is not renewed. What was issued already is good until it ends.", who), nil
}
