package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"citadel/cmd/citadelctl/health"
	"citadel/secretcontroller"
)

// Further flags of citadel's.
const (
	storageFlag   = "citadel-storage-namespace"
	listedFlag    = "listened-namespaces"
	byDefaultFlag = "enable-namespaces-by-default"
	filesFlag     = "signing-cert"

	serverOnlyFlag = "server-only"
)

// installFlags say which installation to look at.
type installFlags struct {
	output
	clusterFlags
	ruleFlags
	storage   string
	listed    []string
	byDefault bool
	examples  int
}

func (f *installFlags) addTo(flags *pflag.FlagSet) {
	f.output.addTo(flags)
	flags.StringVar(&f.storage, storageFlag, storageNamespace, "`namespace` that citadel is in and keeps its own objects in")
	flags.IntVar(&f.examples, "examples", 3, "how many Secrets or namespaces to name of `many`")
	flags.StringSliceVar(&f.listed, listedFlag, nil, "as citadel is told: the only `namespaces` that it manages; this and what follows: as the Deployment says, unless given")
	flags.BoolVar(&f.byDefault, byDefaultFlag, true, "as citadel is told: manage namespaces that no label speaks of")
	f.addTrustDomain(flags)
	f.addRotation(flags)
	f.clusterFlags.addTo(flags)
}

func (f *installFlags) validate() error {
	problems := []error{f.output.validate(), f.ruleFlags.validate()}
	if f.storage == "" {
		problems = append(problems, fmt.Errorf("--%s is empty: name the namespace that citadel is in", storageFlag))
	}
	if f.examples < 0 {
		problems = append(problems, fmt.Errorf("--examples %d is negative", f.examples))
	}
	return errors.Join(problems...)
}

// read looks at the installation.
func (f *installFlags) read(ctx context.Context, c *cluster, flags *pflag.FlagSet) (health.World, error) {
	w := health.World{Examples: f.examples}
	var err error
	if w.Deployment, err = c.deployment(ctx, f.storage, health.Deployment); err != nil {
		return w, err
	}
	if w.Deployment.Value != nil {
		w.FromFiles, err = adopt(flags, w.Deployment.Value)
		if err := errors.Join(err, f.validate()); err != nil {
			return w, fmt.Errorf("read the flags of Deployment %s/%s: %w: give those of citadelctl", f.storage, health.Deployment, err)
		}
	}
	w.Scope = secretcontroller.Scope{Listed: f.listed, StorageNamespace: f.storage, EnabledByDefault: f.byDefault}
	w.TrustDomain, w.Rotation = f.td, f.rotation
	err = c.fillWorld(ctx, &w)
	w.Now = c.clock.now()
	return w, err
}

// adopted are the flags whose values the Deployment tells, where they are not
// given.
var adopted = []string{listedFlag, byDefaultFlag, trustDomainFlag, graceRatioFlag, minGraceFlag, jitterFlag}

// adopt takes over what the Deployment tells citadel by arguments, else by its
// environment, and says whether it signs with files.
func adopt(flags *pflag.FlagSet, d *appsv1.Deployment) (fromFiles bool, err error) {
	container := citadelOf(d)
	if container == nil {
		return false, nil
	}
	told := environment(container.Env, d.Namespace)
	arguments, err := parse(slices.Concat(container.Command, container.Args))
	maps.Copy(told, arguments)
	for _, name := range adopted {
		if value, ok := told[name]; ok {
			err = errors.Join(err, set(flags, name, value))
		}
	}
	return told[filesFlag] != "", err
}

// environment reads the variables of flags. NAMESPACE counts where the flag's
// own does not.
func environment(env []corev1.EnvVar, namespace string) map[string]string {
	told := map[string]string{}
	for _, e := range env {
		if e.ValueFrom != nil && e.ValueFrom.FieldRef != nil && e.ValueFrom.FieldRef.FieldPath == "metadata.namespace" {
			e.Value = namespace
		}
		name, ok := strings.CutPrefix(e.Name, "CITADEL_")
		name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case e.Value == "":
		case ok:
			told[name] = e.Value
		case e.Name == "NAMESPACE" && told[listedFlag] == "":
			told[listedFlag] = e.Value
		}
	}
	return told
}

// parse reads the arguments that are of interest and passes by the others.
func parse(args []string) (map[string]string, error) {
	set := pflag.NewFlagSet("citadel", pflag.ContinueOnError)
	set.ParseErrorsAllowlist.UnknownFlags = true
	set.Usage = func() {}
	for _, name := range append([]string{filesFlag, storageFlag, serverOnlyFlag}, adopted...) {
		set.String(name, "", "")
	}
	set.Lookup(byDefaultFlag).NoOptDefVal = "true"
	set.Lookup(serverOnlyFlag).NoOptDefVal = "true"
	told := map[string]string{}
	err := set.Parse(args)
	set.Visit(func(flag *pflag.Flag) { told[flag.Name] = flag.Value.String() })
	return told, err
}

// set leaves a flag that the person gave as it is, and does not mark it as
// given.
func set(flags *pflag.FlagSet, name, value string) error {
	flag := flags.Lookup(name)
	if flag == nil || flag.Changed {
		return nil
	}
	if list, ok := flag.Value.(pflag.SliceValue); ok {
		return list.Replace(splitNames(value))
	}
	if err := flag.Value.Set(value); err != nil {
		return fmt.Errorf("--%s %q: %w", name, value, err)
	}
	return nil
}

// unfinished is the exit code of a verdict.
func unfinished(checks []health.Check) error {
	switch health.Verdict(checks) {
	case health.Failed:
		return errWrong
	case health.Unknown:
		return codedError{exitDenied, errors.New("nothing wrong was found, and not all could be looked at: see what is unknown")}
	}
	return nil
}

// prepare checks the flags and connects.
func (f *installFlags) prepare(cmd *cobra.Command) (*cluster, error) {
	if err := f.validate(); err != nil {
		return nil, usageError(cmd, err)
	}
	return f.connect()
}
