package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"citadel/ca/statedir"
	"citadel/ca/trust"
)

// inCluster are the flags that mean nothing where there is no Kubernetes. Who
// gives one expects what --state-dir does not do.
var inCluster = []string{
	"kube-config", "listened-namespaces", "enable-namespaces-by-default", "read-signing-cert-only",
	"workload-cert-grace-period-ratio", "workload-cert-min-grace-period", "workload-cert-rotation-jitter", "root-change-window", "key-type", "pkcs8-keys",
	"leader-elect", "lease-duration", "lease-renew-deadline", "lease-retry-period", "max-clock-skew", "max-concurrent-writes",
	"token-audiences", "token-review-ttl", "trusted-node-accounts",
}

// checkStateDir has the flags say one thing: in a cluster or not.
func (c *config) checkStateDir(given *pflag.FlagSet) {
	if c.stateDir == "" {
		return
	}
	const noKubernetes = "contradicts %s, with which there is no Kubernetes: give one or the other"
	for _, name := range inCluster {
		if flag := given.Lookup(name); flag.Changed && flag.Value.String() != "" {
			c.flags.Problem(name, noKubernetes, c.flags.Name("state-dir"))
		}
	}
	if given.Changed("server-only") && !c.serverOnly {
		c.flags.Problem("server-only", noKubernetes, c.flags.Name("state-dir"))
	}
	if given.Changed("self-signed-ca") && !c.selfSigned && c.source == sourceStateDir {
		c.flags.Problem("self-signed-ca", "is false, and without --signing-cert, --signing-key and --root-cert the root is that of %s: give them, or remove it", c.flags.Name("state-dir"))
	}
	if c.grpcPort <= 0 {
		c.flags.Problem("state-dir", "leaves nothing to do without the CSR API: give %s too", c.flags.Name("grpc-port"))
	}
	if info, err := os.Stat(filepath.Dir(c.stateDir)); err != nil || !info.IsDir() {
		c.flags.Problem("state-dir", "folder %s of %s is not there", filepath.Dir(c.stateDir), c.stateDir)
	}
	if info, err := os.Stat(c.stateDir); err == nil && !info.IsDir() {
		c.flags.Problem("state-dir", "%s is a file: name a folder", c.stateDir)
	}
	if !given.Changed("audit-log") {
		c.auditLog = filepath.Join(c.stateDir, statedir.AuditLog)
	}
	c.serverOnly = true
}

// loadFrom gets the signer from the files of the flags, else the root of the
// directory.
func (c *config) loadFrom(dir *statedir.Dir, log *slog.Logger) (kept, error) {
	if err := dir.KeepTrustDomain(c.td); err != nil {
		return kept{}, fmt.Errorf("--state-dir: keep the trust domain for citadelctl: %w", err)
	}
	if c.source == sourceFiles {
		log.Info("operator's own CA", "file", c.signingCert)
		return kept{Signer: c.signer}, nil
	}
	signer, made, err := dir.LoadRoot(time.Now(), c.newRoot())
	if err != nil {
		return kept{}, fmt.Errorf("--state-dir: %w", err)
	}
	log.Info("self-signed root", "folder", c.stateDir, "made", made)
	root := signer.Cert()
	signer, err = c.withExtraRoots(signer)
	return kept{signer, c.stateDir, func(context.Context) error { return dir.HoldsRoot(root) }}, err
}

// newRoot is what a root is like when there is none yet.
func (c *config) newRoot() trust.SelfSigned {
	return trust.SelfSigned{TrustDomain: c.td, KeyType: c.caKey, Lifetime: c.selfSignedTTL}
}
