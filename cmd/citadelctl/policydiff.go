package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

// diffDocument is the form for programs.
type diffDocument struct {
	meta
	partial
	mesh.Diff
}

// diffFlags are what policy diff is told.
type diffFlags struct {
	output
	meshFlags
	files, deleted []string
}

func newDiffCommand() *cobra.Command {
	f := &diffFlags{}
	cmd := &cobra.Command{
		Use:   "diff -f CHANGE.yaml",
		Short: "Say what a change of policy would break, before it is applied",
		Long: `diff says what would happen if objects were applied, or deleted: each pair of a kind of client and a
port of a server that could no longer talk or could again, and each that would lose or gain
encryption. Any objects may change: policies and rules, Services, Pods, and the mesh config by its
ConfigMap istio.

It exits with 1 when anything breaks that works now, be it at one endpoint of many, and when the change itself is not valid.`,
		Example: `  citadelctl policy diff -f strict.yaml
  citadelctl policy diff --delete DestinationRule/istio-system/default
  citadelctl policy diff -f strict.yaml --delete MeshPolicy/default -o json
  citadelctl policy diff -f strict.yaml --objects mesh/ --mesh-config mesh.yaml`,
		Args: noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	flags := plainFlags(cmd)
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "YAML or JSON `file` of objects that would be applied; a folder is all such files in it, - standard input; may be given again")
	flags.StringArrayVar(&f.deleted, "delete", nil, "`object` that would be deleted: KIND/NAMESPACE/NAME, MeshPolicy/NAME, or MeshConfig; may be given again")
	f.output.addTo(flags)
	f.output.complete(cmd)
	f.meshFlags.addTo(flags, false)
	return cmd
}

func (f *diffFlags) run(cmd *cobra.Command) error {
	deleted, err := parseRefs(f.deleted)
	if len(f.files)+len(f.deleted) == 0 {
		err = errors.New("give the change: -f FILE or --delete KIND/NAMESPACE/NAME")
	}
	if slices.Contains(f.files, "-") && slices.Contains(f.objects, "-") {
		err = errors.Join(err, errors.New("-f and --objects cannot both be standard input"))
	}
	if err := f.meshFlags.check(cmd.Flags(), err, f.output.validate()); err != nil {
		return usageError(cmd, err)
	}
	objects, err := decodeFiles(cmd, f.storage, f.files)
	if err != nil {
		return err
	}
	before, err := f.meshFlags.read(cmd)
	if err != nil {
		return err
	}
	after, err := changed(before, objects, deleted)
	if err != nil {
		return before.finish(cmd, err)
	}
	document := diffDocument{newMeta("PolicyDiff", before.now), partial{before.unread}, mesh.Compare(before.World, after)}
	err = f.output.write(cmd.OutOrStdout(), document, func(w io.Writer) error { return writeDiff(w, document.Diff) })
	if err == nil && document.Counts[mesh.Breaks]+document.Counts[mesh.BreaksAtSome] > 0 {
		err = errWrong
	}
	return before.finish(cmd, err)
}

// changed is the mesh after the change. One that an admission would refuse is an
// error: nothing would come of it.
func changed(before *meshWorld, objects []policy.Object, deleted []policy.Ref) (*mesh.World, error) {
	for _, ref := range deleted {
		if before.Object(ref) == nil {
			return nil, codedError{exitNotFound, fmt.Errorf("--delete %s: there is no such object", ref)}
		}
	}
	after := before.Without(deleted...).With(before.now, objects...)
	var problems []error
	for _, o := range objects {
		for _, p := range policy.Validate(after.Generation(), o) {
			if !p.Warning {
				problems = append(problems, fmt.Errorf("the change would be refused: %w", p))
			}
		}
	}
	return after, errors.Join(problems...)
}

// parseRefs reads KIND/NAMESPACE/NAME, in any case of the letters of KIND.
func parseRefs(texts []string) (all []policy.Ref, err error) {
	for _, text := range texts {
		ref, ok := parseRef(text)
		if !ok {
			err = errors.Join(err, fmt.Errorf("--delete %q: write KIND/NAMESPACE/NAME, like PeerAuthentication/default/strict, MeshPolicy/default or MeshConfig", text))
		}
		all = append(all, ref)
	}
	return all, err
}

func parseRef(text string) (policy.Ref, bool) {
	parts := strings.Split(text, "/")
	var ref policy.Ref
	for kind := policy.KindMeshConfig; kind <= policy.KindDestinationRule; kind++ {
		if strings.EqualFold(kind.String(), parts[0]) {
			ref.Kind = kind
		}
	}
	switch ref.Kind {
	case policy.KindNone:
		return ref, false
	case policy.KindMeshConfig:
		return ref, len(parts) == 1
	case policy.KindMeshPolicy, policy.KindNamespace:
		ref.Name = parts[len(parts)-1]
		return ref, len(parts) == 2 && ref.Name != ""
	}
	if len(parts) != 3 {
		return ref, false
	}
	ref.Namespace, ref.Name = parts[1], parts[2]
	return ref, ref.Namespace != "" && ref.Name != ""
}

// kindTexts are what people read of a change, and of how many there are.
var kindTexts = map[mesh.ChangeKind]struct{ title, counted string }{
	mesh.Breaks:          {"BREAKS", "broken"},
	mesh.BreaksAtSome:    {"BREAKS", "broken at some endpoints"},
	mesh.LosesEncryption: {"LOSES ENCRYPTION", "no longer encrypted"},
	mesh.NewConflict:     {"NEW, AND A CONFLICT", "new and in conflict"},
	mesh.Mends:           {"works again", "mended"},
	mesh.MendsAtSome:     {"works again", "mended at some endpoints"},
	mesh.GainsEncryption: {"gains encryption", "encrypted from then on"},
	mesh.New:             {"new", "new"},
}

// some are the first of many names.
func some(names []string) string {
	const few = 6
	if len(names) <= few {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
}

// atText says at which endpoints it happens, when that is not all of them.
func atText(c mesh.PairChange) string {
	if c.Of == 0 {
		return ""
	}
	return fmt.Sprintf(" at %d of %s (%s)", len(c.At), count(c.Of, "endpoint"), printable(some(c.At)))
}

func writeDiff(w io.Writer, d mesh.Diff) error {
	if d.GenerationBefore != d.GenerationAfter {
		fmt.Fprintf(w, "The rules of %s hold in place of those of %s: --generation %[2]s would keep them.\n\n", d.GenerationAfter, d.GenerationBefore)
	}
	for _, c := range d.Changes {
		fmt.Fprintf(w, "%s%s: %s to %s\n", kindTexts[c.Kind].title, atText(c), printable(some(c.Clients)), printable(some(c.Servers)))
		if c.Kind != mesh.New && c.Kind != mesh.NewConflict {
			fmt.Fprintf(w, "    now:   %s\n", printable(c.Before.Reason()))
		}
		fmt.Fprintf(w, "    after: %s\n", printable(c.After.Reason()))
	}
	var parts []string
	for _, kind := range mesh.ChangeKinds {
		if n := d.Counts[kind]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, kindTexts[kind].counted))
		}
	}
	if len(parts) == 0 {
		_, err := fmt.Fprintf(w, "Nothing changes for any of %d pairs.\n", d.Pairs)
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s, of %d pairs.\n", strings.Join(parts, ", "), d.Pairs)
	return err
}
