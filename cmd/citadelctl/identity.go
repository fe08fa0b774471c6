package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"citadel/ca/kube"
)

func newIdentityCommand() *cobra.Command {
	cmd := newGroup("identity", "Ban identities and certificates, so that nothing more is issued to them", newBanCommand(), newUnbanCommand(), newBanListCommand())
	cmd.Example = `  citadelctl identity ban vm/web --reason "host web-3 was stolen"
  citadelctl identity list
  citadelctl identity unban vm/web`
	return cmd
}

// banRights are what changes the list of bans.
var banRights = []right{
	{resource: "configmaps", name: kube.BansConfigMap, verbs: []string{"get", "update"}},
	{resource: "configmaps", verbs: []string{"create"}},
}

// errUnchanged says that the list of bans is as it should be.
var errUnchanged = errors.New("nothing is to be changed")

// editBans changes the list as one step, where edit does.
func (c *cluster) editBans(ctx context.Context, storage string, edit func(kube.BanList) error) error {
	err := unlessUnchanged(kube.EditBans(ctx, c.client, storage, checked(edit)))
	switch {
	case apierrors.IsForbidden(err):
		missing, askErr := lacking(single(banRights, storage), c.iMay(ctx))
		if askErr == nil && len(missing) > 0 {
			return codedError{exitDenied, fmt.Errorf("%w: you may not: %s", err, strings.Join(missing, ", "))}
		}
	case apierrors.IsNotFound(err):
		if err := c.checkNamespace(ctx, storage); err != nil {
			return err
		}
	}
	return c.explain(err, access{verb: "update", resource: "configmaps", namespace: storage, name: kube.BansConfigMap})
}

// checked is an edit that leaves a list that citadel can read.
func checked(edit func(kube.BanList) error) func(kube.BanList) error {
	return func(list kube.BanList) error {
		if err := edit(list); err != nil {
			return err
		}
		return readable(list)
	}
}

func unlessUnchanged(err error) error {
	if errors.Is(err, errUnchanged) {
		return nil
	}
	return err
}

// readable is nil for a list that citadel can read. Of one that it cannot it
// goes by none that is new.
func readable(list kube.BanList) error {
	for _, entry := range slices.Sorted(maps.Keys(list)) {
		if _, err := (kube.BanList{entry: list[entry]}).Bans(); err != nil {
			return fmt.Errorf("entry %q of the list is neither a SPIFFE ID nor a serial number, and citadel goes by no list with such a one; take it out by: citadelctl identity unban '%s'", entry, entry)
		}
	}
	return nil
}

func oneWhom(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError(cmd, fmt.Errorf("name one, got %q: %s", args, whomForms))
	}
	return nil
}

// because gives the reason of a ban, where there is one.
func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// since says when a ban began, where that is known.
func since(b kube.Ban) string {
	if b.Since.IsZero() {
		return ""
	}
	return " since " + moment(b.Since.UTC())
}
