package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"

	"citadel/cmd/citadelctl/survey"
	"citadel/secretcontroller"
)

// storageNamespace is where citadel lives unless it is told otherwise.
const storageNamespace = "istio-system"

// sight is what a look at a cluster found.
type sight struct {
	now     time.Time
	report  survey.Report
	missing error // names the Secrets that were named and do not exist
}

// look reads the Secrets of a namespace, of all, or the named ones, and judges
// them.
func (f *secretFlags) look(cmd *cobra.Command, names []string) (sight, error) {
	if err := f.validate(names); err != nil {
		return sight{}, usageError(cmd, err)
	}
	given, err := readRoots(f.rootCert)
	if err != nil {
		return sight{}, err
	}
	c, err := f.connect()
	if err != nil {
		return sight{}, err
	}
	namespace := f.namespace
	if namespace == "" && !f.allNamespaces {
		namespace = c.namespace
	}
	world := survey.World{TrustDomain: f.td, Rotation: f.rotation}
	if len(given.Certs) > 0 {
		world.Bundles = survey.One(survey.NewBundle(given.From, given.Certs))
	}
	missing, err := c.fill(cmd.Context(), &world, namespace, names)
	if err != nil {
		return sight{}, err
	}
	if len(world.Secrets) == 0 {
		if err := c.checkNamespace(cmd.Context(), namespace); err != nil {
			return sight{}, err
		}
	}
	if len(given.Certs) == 0 && len(world.Secrets) > 0 {
		if err := c.fillRoots(cmd.Context(), &world, namespace, cmd.ErrOrStderr()); err != nil {
			return sight{}, err
		}
	}
	if len(world.Secrets) == 0 && missing == nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "No workload Secrets (type %s) in %s.\n", secretcontroller.SecretType, placeText(namespace))
	}
	now := time.Now()
	report, err := survey.Survey(now, world)
	if errors.Is(err, survey.ErrNoRoots) {
		err = fmt.Errorf("%w: no namespace has a good ConfigMap %s: is citadel running? Otherwise give --root-cert FILE", err, secretcontroller.RootsConfigMap)
	}
	return sight{now: now, report: report, missing: missing}, err
}

func placeText(namespace string) string {
	if namespace == "" {
		return "any namespace"
	}
	return "namespace " + namespace
}

// fill reads Secrets and then service accounts, so that an account that is gone
// was gone before. Of the names, those that do not exist come back as missing.
func (c *cluster) fill(ctx context.Context, world *survey.World, namespace string, names []string) (missing, err error) {
	if len(names) == 0 {
		world.Secrets, err = c.secrets(ctx, namespace)
	} else {
		world.Secrets, missing, err = c.named(ctx, namespace, names)
	}
	if err != nil || len(world.Secrets) == 0 {
		return missing, err
	}
	world.Accounts, err = c.accounts(ctx, namespace)
	return missing, err
}

func (c *cluster) named(ctx context.Context, namespace string, names []string) (found []corev1.Secret, missing, err error) {
	for _, name := range names {
		secret, err := c.secret(ctx, namespace, name)
		if coded, ok := errors.AsType[codedError](err); ok && coded.code == exitNotFound {
			missing = errors.Join(missing, fmt.Errorf("%w%s", err, hint(name)))
			continue
		}
		if err != nil {
			return nil, nil, err
		}
		found = append(found, *secret)
	}
	if missing != nil {
		missing = codedError{exitNotFound, missing}
	}
	return found, missing, nil
}

// hint helps those who give the name of a service account.
func hint(name string) string {
	if _, ok := secretcontroller.AccountOf(name); ok {
		return ""
	}
	return ": that of service account " + name + " is called " + secretcontroller.SecretName(name)
}

func (c *cluster) fillRoots(ctx context.Context, world *survey.World, namespace string, stderr io.Writer) error {
	configMaps, err := c.roots(ctx, namespace)
	if err != nil {
		if coded, ok := errors.AsType[codedError](err); ok && coded.code == exitDenied {
			return codedError{exitDenied, fmt.Errorf("%w; or give the roots by --root-cert FILE", err)}
		}
		return err
	}
	var warnings []string
	world.Bundles, warnings = survey.ReadBundles(configMaps, storageNamespace)
	for _, w := range warnings {
		fmt.Fprintf(stderr, "citadelctl: warning: %s\n", printable(w))
	}
	return nil
}
