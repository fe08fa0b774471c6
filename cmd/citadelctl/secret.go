package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/secretcontroller"
)

// The flags of citadel whose values citadelctl has to be told, by the names and
// with the defaults that they have there.
const (
	graceRatioFlag = "workload-cert-grace-period-ratio"
	minGraceFlag   = "workload-cert-min-grace-period"
	jitterFlag     = "workload-cert-rotation-jitter"
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
	namespace     string
	allNamespaces bool
	trustDomain   string
	rootCert      string
	rotation      secretcontroller.Rotation

	td spiffeid.TrustDomain // of trustDomain, checked
}

func (f *secretFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVarP(&f.namespace, "namespace", "n", "", "`namespace` to look at; empty: the context's")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "look at all namespaces")
	f.output.addTo(flags)
	flags.StringVar(&f.trustDomain, "trust-domain", "", "SPIFFE trust `domain` that certificates must be of; empty: the roots'")
	flags.StringVar(&f.rootCert, "root-cert", "", "`file` of the roots to judge by, PEM; empty: ConfigMap "+secretcontroller.RootsConfigMap)
	d := secretcontroller.DefaultRotation()
	flags.Float64Var(&f.rotation.GraceRatio, graceRatioFlag, d.GraceRatio, "as citadel is told: part of the life before the end in which a certificate is renewed")
	flags.DurationVar(&f.rotation.MinGrace, minGraceFlag, d.MinGrace, "as citadel is told: least that this period may be")
	flags.Float64Var(&f.rotation.Jitter, jitterFlag, d.Jitter, "as citadel is told: part of the life over which renewals are spread")
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
	if f.trustDomain != "" {
		var err error
		if f.td, err = spiffeid.TrustDomainFromString(f.trustDomain); err != nil || strings.Contains(f.trustDomain, "/") {
			problems = append(problems, fmt.Errorf("--trust-domain %q is no SPIFFE trust domain: use lower-case letters, digits, dots, dashes and underscores", f.trustDomain))
		}
	}
	problems = append(problems, checkRatio(graceRatioFlag, f.rotation.GraceRatio), checkRatio(jitterFlag, f.rotation.Jitter))
	if f.rotation.MinGrace < 0 {
		problems = append(problems, fmt.Errorf("--%s %s is negative", minGraceFlag, f.rotation.MinGrace))
	}
	return errors.Join(problems...)
}

func checkRatio(flag string, ratio float64) error {
	if !(ratio >= 0 && ratio <= 1) { // NaN too
		return fmt.Errorf("--%s %v must be between 0 and 1", flag, ratio)
	}
	return nil
}
