package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	appsv1 "k8s.io/api/apps/v1"

	"citadel/cmd/citadelctl/health"
	"citadel/secretcontroller"
)

// Further flags of citadel's.
const (
	storageFlag   = "citadel-storage-namespace"
	listedFlag    = "listened-namespaces"
	byDefaultFlag = "enable-namespaces-by-default"
	filesFlag     = "signing-cert"
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
	if len(d.Spec.Template.Spec.Containers) == 0 {
		return false, nil
	}
	container := d.Spec.Template.Spec.Containers[0]
	for _, e := range container.Env {
		name, ok := flagOf(e.Name)
		if ok && e.Value != "" {
			fromFiles = fromFiles || name == filesFlag
			err = errors.Join(err, set(flags, name, e.Value))
		}
	}
	told := pflag.NewFlagSet("citadel", pflag.ContinueOnError)
	told.ParseErrorsAllowlist.UnknownFlags = true
	told.Usage = func() {}
	values := map[string]*string{}
	for _, name := range append([]string{filesFlag}, adopted...) {
		values[name] = told.String(name, "", "")
	}
	told.Lookup(byDefaultFlag).NoOptDefVal = "true"
	if parseErr := told.Parse(slices.Concat(container.Command, container.Args)); parseErr != nil {
		return fromFiles, errors.Join(err, parseErr)
	}
	told.Visit(func(flag *pflag.Flag) {
		fromFiles = fromFiles || flag.Name == filesFlag
		err = errors.Join(err, set(flags, flag.Name, *values[flag.Name]))
	})
	return fromFiles, err
}

// flagOf is the flag that a variable sets.
func flagOf(variable string) (string, bool) {
	if variable == "NAMESPACE" {
		return listedFlag, true
	}
	name, ok := strings.CutPrefix(variable, "CITADEL_")
	return strings.ReplaceAll(strings.ToLower(name), "_", "-"), ok
}

// set leaves a flag that the person gave, and one that is not adopted, as it is.
func set(flags *pflag.FlagSet, name, value string) error {
	flag := flags.Lookup(name)
	if flag == nil || flag.Changed || !slices.Contains(adopted, name) {
		return nil
	}
	if list, ok := flag.Value.(pflag.SliceValue); ok {
		return list.Replace(strings.Split(value, ","))
	}
	return flag.Value.Set(value) // without marking it as given
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
