package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"citadel/ca/statedir"
	"citadel/ca/trust"
	"citadel/cmd/citadelctl/health"
	"citadel/cmd/citadelctl/survey"
	"citadel/secretcontroller"
)

// defaultTrustDomain is citadel's where it is told none.
const defaultTrustDomain = "cluster.local"

// siteFlags say which citadel is to be told something.
type siteFlags struct {
	clusterFlags
	domainFlag
	storage  string
	stateDir string
}

func (f *siteFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.storage, storageFlag, storageNamespace, "`namespace` that citadel is in and keeps its own objects in")
	flags.StringVar(&f.trustDomain, trustDomainFlag, "", "SPIFFE trust `domain` of identities; empty: as citadel's Deployment says, else the roots'")
	flags.StringVar(&f.stateDir, stateDirFlag, "", "`folder` of a citadel without Kubernetes, as it is told by its flag of this name")
	f.clusterFlags.addTo(flags)
}

const stateDirFlag = "state-dir"

// checkStateDir refuses to look for a citadel in two places.
func (f *siteFlags) checkStateDir(flags *pflag.FlagSet) error {
	if f.stateDir == "" {
		return nil
	}
	var problems []error
	for _, name := range []string{storageFlag, "kubeconfig", "context", "request-timeout"} {
		if flags.Changed(name) {
			problems = append(problems, fmt.Errorf("--%s contradicts --%s, with which there is no cluster: give one or the other", name, stateDirFlag))
		}
	}
	return errors.Join(problems...)
}

// validate reports all that is wrong at once, other problems included.
func (f *siteFlags) validate(others ...error) error {
	return errors.Join(append(others, f.domainFlag.check(), checkName(storageFlag, f.storage, validation.IsDNS1123Label))...)
}

// checkName is nil for what Kubernetes takes for a name.
func checkName(flag, name string, rule func(string) []string) error {
	if name == "" {
		return fmt.Errorf("--%s is empty: give it", flag)
	}
	if problems := rule(name); len(problems) > 0 {
		return fmt.Errorf("--%s %q is no name: %s", flag, name, problems[0])
	}
	return nil
}

// authorityRoots are the roots that the server's certificate ends at.
type authorityRoots struct {
	from  string
	certs []*x509.Certificate
}

// rootsInForce reads those that citadel publishes in its own namespace: in the
// ConfigMap of every workload, else, where citadel does not manage that
// namespace, in the one of old agents, which holds the issuers too. Others
// write ConfigMaps of the first name elsewhere, so no other namespace counts.
// Where there are neither, there are no roots.
func (c *cluster) rootsInForce(ctx context.Context, storage string) (authorityRoots, error) {
	cm, err := c.configMap(ctx, storage, secretcontroller.RootsConfigMap)
	if err != nil {
		return authorityRoots{}, err
	}
	if cm != nil {
		return parseRoots(cm, secretcontroller.RootsKey, []byte(cm.Data[secretcontroller.RootsKey]))
	}
	if cm, err = c.configMap(ctx, storage, secretcontroller.LegacyConfigMap); err != nil || cm == nil {
		return authorityRoots{}, err
	}
	text, err := base64.StdEncoding.DecodeString(cm.Data[secretcontroller.LegacyRootsKey])
	if err != nil {
		text = nil // which holds no certificate either
	}
	roots, err := parseRoots(cm, secretcontroller.LegacyRootsKey, text)
	roots.certs = slices.DeleteFunc(roots.certs, func(cert *x509.Certificate) bool { return cert.CheckSignatureFrom(cert) != nil })
	return roots, err
}

func parseRoots(cm *corev1.ConfigMap, key string, text []byte) (authorityRoots, error) {
	certs, err := trust.ParseCertificates(text)
	if err != nil {
		return authorityRoots{}, fmt.Errorf("ConfigMap %s/%s: %s %w", cm.Namespace, cm.Name, key, err)
	}
	return authorityRoots{fmt.Sprintf("ConfigMap %s/%s", cm.Namespace, cm.Name), trust.MergeRoots(certs)}, nil
}

// configMap is nil where there is none.
func (c *cluster) configMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	cm, err := c.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
	return optional(c, access{verb: "get", resource: "configmaps", namespace: namespace, name: name}, cm, err)
}

// optional makes nil of what is not there.
func optional[T any](c *cluster, a access, value *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, c.explain(err, a)
	}
	return value, nil
}

// domain is the trust domain of citadel's identities: the one that was given,
// else the Deployment's, else the roots', else citadel's own default where it
// is known that it is told none; zero where nobody says.
func (f *siteFlags) domain(cmd *cobra.Command, c *cluster, roots authorityRoots) (spiffeid.TrustDomain, error) {
	if !f.td.IsZero() {
		return f.td, nil
	}
	deployment, err := c.deployment(cmd.Context(), f.storage, health.Deployment)
	if err != nil {
		return spiffeid.TrustDomain{}, err
	}
	if deployment.Value != nil {
		_, err := adopt(cmd.Flags(), deployment.Value)
		if err := errors.Join(err, f.domainFlag.check()); err != nil {
			return spiffeid.TrustDomain{}, fmt.Errorf("read the flags of Deployment %s/%s: %w: give --%s", f.storage, health.Deployment, err, trustDomainFlag)
		}
	}
	told := survey.NewBundle(roots.from, roots.certs).TrustDomain()
	switch {
	case !f.td.IsZero():
		return f.td, nil
	case told.IsZero() && deployment.Value != nil:
		return spiffeid.TrustDomainFromString(defaultTrustDomain)
	}
	return told, nil
}

// tryDomain is domain for those who can do without: what may not be read tells
// nothing.
func (f *siteFlags) tryDomain(cmd *cobra.Command, c *cluster) (spiffeid.TrustDomain, error) {
	roots, err := c.rootsInForce(cmd.Context(), f.storage)
	if coded, ok := errors.AsType[codedError](err); ok && coded.code != exitDenied {
		return spiffeid.TrustDomain{}, err
	}
	return f.domain(cmd, c, roots)
}

// prepare checks the flags and connects, or opens the directory.
func (f *siteFlags) prepare(cmd *cobra.Command, others ...error) (*site, error) {
	if err := f.validate(append(others, f.checkStateDir(cmd.Flags()))...); err != nil {
		return nil, usageError(cmd, err)
	}
	if f.stateDir != "" {
		dir, err := statedir.Beside(f.stateDir)
		if err != nil {
			return nil, fileError(fmt.Errorf("--%s: %w", stateDirFlag, err))
		}
		return f.directory(dir), nil
	}
	c, err := f.connect()
	if _, is := errors.AsType[noCluster](err); is {
		return nil, codedError{exitUsage, fmt.Errorf("%w, or --%s DIR for a citadel without Kubernetes", err, stateDirFlag)}
	}
	if err != nil {
		return nil, err
	}
	return f.cluster(c), nil
}
