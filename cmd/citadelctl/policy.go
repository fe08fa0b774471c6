package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/ca/policy"
	"citadel/cmd/citadelctl/mesh"
)

func newPolicyCommand() *cobra.Command {
	cmd := newGroup("policy", "Say who can talk to whom by mutual TLS, why not, and what a change would break",
		newExplainCommand(), newMatrixCommand(), newDiffCommand(), newValidateCommand(), newPolicyTestCommand())
	cmd.Long = "policy answers questions about the mTLS policy of a mesh, of Istio's three generations: annotations\n" +
		"and authPolicy; MeshPolicy, Policy and DestinationRule; PeerAuthentication and DestinationRule.\n" +
		"It reads a cluster, a running citadel, or files, and changes nothing."
	cmd.Example = `  citadelctl policy explain sleep.legacy httpbin.default:8000
  citadelctl policy matrix -n default
  citadelctl policy diff -f strict.yaml
  citadelctl policy validate -f strict.yaml
  citadelctl policy test cases.yaml`
	return cmd
}

// meshFlags say which mesh to ask about: that of a cluster, of a citadel, or of
// files.
type meshFlags struct {
	clusterFlags
	citadelFlags
	storage    string
	objects    []string
	meshConfig string
	generation string
}

// addTo adds the flags; short says whether -f names the objects too.
func (f *meshFlags) addTo(flags *pflag.FlagSet, short bool) {
	shorthand := ""
	if short {
		shorthand = "f"
	}
	flags.StringArrayVarP(&f.objects, "objects", shorthand, nil, "YAML or JSON `file` of objects to judge in place of a cluster's; a folder is all such files in it, - standard input; may be given again")
	flags.StringVar(&f.meshConfig, "mesh-config", "", "`file` of the mesh config that goes with --objects; without it, ConfigMap istio of the objects, else all defaults")
	addGeneration(flags, &f.generation)
	flags.StringVar(&f.storage, storageFlag, storageNamespace, "`namespace` of ConfigMap istio, which holds the mesh config")
	f.citadelFlags.addTo(flags)
	f.clusterFlags.addTo(flags)
}

func addGeneration(flags *pflag.FlagSet, generation *string) {
	flags.StringVar(generation, "generation", policy.Auto.String(), "whose `rules` hold: legacy (Istio 0.3 to 0.7), v1alpha1 (to 1.4), v1 (today), or auto: the newest of which there is a trace")
}

func parseGeneration(text string) (policy.Generation, error) {
	g, err := policy.ParseGeneration(text)
	if err != nil {
		return g, fmt.Errorf("--generation %q: use auto, legacy, v1alpha1 or v1", text)
	}
	return g, nil
}

// meshWorld is a mesh that was read, and what could not be.
type meshWorld struct {
	*mesh.World
	// unread are kinds of objects that could not be read: answers are without them.
	unread []unreadKind
	// warnings are to be told with every answer.
	warnings []mesh.Warning
	now      time.Time
}

// unreadKind is a kind of objects, or one object, that answers are without.
type unreadKind struct {
	Kind string `json:"kind"`
	Why  string `json:"why"`

	denied bool
}

// partial is what every answer says that may be wrong for want of rights.
type partial struct {
	// Unread lists what could not be read. While it is not empty, the answers may
	// be others in truth.
	Unread []unreadKind `json:"unread,omitempty"`
}

// finish tells what to beware of, and what could not be read. Nothing unseen passes for good: the exit
// code says so, unless something is wrong already.
func (w *meshWorld) finish(cmd *cobra.Command, err error) error {
	for _, one := range w.warnings {
		fmt.Fprintf(cmd.ErrOrStderr(), "citadelctl: warning: %s\n", printable(one.Message))
	}
	code := exitDenied
	for _, u := range w.unread {
		fmt.Fprintf(cmd.ErrOrStderr(), "citadelctl: %s could not be read: %s\n", u.Kind, printable(u.Why))
		if !u.denied {
			code = exitWrong
		}
	}
	if err != nil || len(w.unread) == 0 {
		return err
	}
	return codedError{code, errors.New("the answer is without what could not be read, and may be another one in truth")}
}
