package main

import (
	"errors"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"citadel/secretcontroller"
)

func newSecretCommand() *cobra.Command {
	cmd := newGroup("secret", "Look at the Secrets that citadel keeps for workloads", newListCommand(), newVerifyCommand())
	cmd.Example = "  citadelctl secret list -A\n  citadelctl secret verify -n web istio.default"
	return cmd
}

// secretFlags are what both commands are told.
type secretFlags struct {
	output
	clusterFlags
	ruleFlags
	namespace     string
	allNamespaces bool
	rootCert      string
}

func (f *secretFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVarP(&f.namespace, "namespace", "n", "", "`namespace` to look at; empty: the context's")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "look at all namespaces")
	f.output.addTo(flags)
	f.addTrustDomain(flags)
	flags.StringVar(&f.rootCert, "root-cert", "", "`file` of the roots to judge by, PEM; empty: ConfigMap "+secretcontroller.RootsConfigMap)
	f.addRotation(flags)
	f.clusterFlags.addTo(flags)
}

// validate reports all that is wrong at once.
func (f *secretFlags) validate(names []string) error {
	problems := []error{f.output.validate()}
	if f.allNamespaces && f.namespace != "" {
		problems = append(problems, errors.New("--namespace and --all-namespaces contradict each other: give one"))
	}
	if f.allNamespaces && len(names) > 0 {
		problems = append(problems, errors.New("a NAME is of one namespace: give --namespace, not --all-namespaces"))
	}
	return errors.Join(append(problems, f.ruleFlags.validate())...)
}
