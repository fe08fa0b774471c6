package main

import (
	"time"

	"github.com/spf13/pflag"

	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
	"citadel/secretcontroller"
)

// options are the flags as given, by section. validate turns them into a
// config.
type options struct {
	flags *daemon.Flags

	listened         string
	storageNamespace string
	kubeConfig       string
	enableByDefault  bool

	trustDomain    string
	selfSigned     bool
	selfSignedTTL  time.Duration
	caKeyType      string
	readOnly       bool
	stateDir       string
	signingCert    string
	signingKey     string
	certChain      string
	rootCert       string
	upstreamCA     string
	workloadTTL    time.Duration
	maxWorkloadTTL time.Duration
	graceRatio     float64
	minGrace       time.Duration
	jitter         float64
	rootWindow     time.Duration
	keyType        string
	pkcs8          bool
	appendDNS      bool
	customDNS      string
	dualUse        bool

	serverOnly    bool
	workers       int
	leaderElect   bool
	leaseDuration time.Duration
	renewDeadline time.Duration
	retryPeriod   time.Duration
	maxSkew       time.Duration

	apiOptions
	connections     int
	eachConnections int // of one address
	policyOptions

	monitoringPort   int
	profiling        bool
	logFormat        string
	logLevel         string
	logAsJSON        bool
	auditLog         string
	livenessPath     string
	livenessInterval time.Duration
}

func newOptions(flags *daemon.Flags) *options {
	o := &options{flags: flags}
	o.clusterFlags(flags.Section("Cluster and namespaces"))
	o.authorityFlags(flags.Section("Certificate authority"))
	o.workloadFlags(flags.Section("Workload certificates"))
	api := flags.Section("CSR API")
	o.apiFlags(api)
	o.connectionFlags(api)
	o.policyFlags(flags.Section("mTLS policy"))
	o.replicaFlags(flags.Section("Replicas and load"))
	o.monitorFlags(flags.Section("Monitoring and logs"))
	o.retiredFlags(flags.Section("Retired"))
	return o
}

func (o *options) clusterFlags(f *pflag.FlagSet) {
	f.StringVar(&o.kubeConfig, "kube-config", "", "kubeconfig `file`; empty: the rights of the pod")
	f.StringVar(&o.listened, "listened-namespaces", "", "comma-separated `namespaces` to manage, labels or not; empty: all, by label and default (environment NAMESPACE too)")
	f.StringVar(&o.storageNamespace, "citadel-storage-namespace", "istio-system", "`namespace` of the CA secret, the lease and ConfigMap istio-security")
	f.BoolVar(&o.enableByDefault, "enable-namespaces-by-default", true, "manage namespaces that have neither label ca.istio.io/override nor ca.istio.io/env")
	o.flags.Alias(f, "listened-namespace", "listened-namespaces")
	o.flags.Alias(f, "namespace", "listened-namespaces")
	o.flags.Alias(f, "istio-ca-storage-namespace", "citadel-storage-namespace")
}

func (o *options) authorityFlags(f *pflag.FlagSet) {
	f.StringVar(&o.trustDomain, "trust-domain", "", "SPIFFE trust domain; empty: cluster.local")
	f.BoolVar(&o.selfSigned, "self-signed-ca", false, "true: the root in Secret istio-ca-secret, made when there is none; false: an operator's own CA; not given: Secret cacerts where it exists, else as true")
	f.DurationVar(&o.selfSignedTTL, "self-signed-ca-cert-ttl", 87600*time.Hour, "life of a new self-signed root")
	f.StringVar(&o.caKeyType, "ca-key-type", "ecdsa-p256", "key of a new self-signed root: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	f.BoolVar(&o.readOnly, "read-signing-cert-only", false, "never make the CA secret: wait for it, at most 20m")
	f.StringVar(&o.signingCert, "signing-cert", "", "`file` of an operator's signing certificate, PEM")
	f.StringVar(&o.signingKey, "signing-key", "", "`file` of its private key, PEM")
	f.StringVar(&o.certChain, "cert-chain", "", "`file` of its issuers, nearest first, PEM; not needed when a root signed it")
	f.StringVar(&o.rootCert, "root-cert", "", "`file` of the roots, PEM; with the CA in a Secret: further roots for every bundle")
	f.StringVar(&o.stateDir, "state-dir", "", "`folder` of root, join tokens, bans and audit log, mode 0700, made when there is none: the CSR API without Kubernetes")
	o.flags.Alias(f, "ca-cert-ttl", "self-signed-ca-cert-ttl")
}

func (o *options) workloadFlags(f *pflag.FlagSet) {
	f.DurationVar(&o.workloadTTL, "workload-cert-ttl", 19*time.Hour, "life of workload certificates; below 1m they may end before renewed ones reach their pods")
	f.DurationVar(&o.maxWorkloadTTL, "max-workload-cert-ttl", 168*time.Hour, "most that a workload certificate may live")
	d := secretcontroller.DefaultRotation()
	f.Float64Var(&o.graceRatio, "workload-cert-grace-period-ratio", d.GraceRatio, "part of the life before the end in which a certificate is renewed, 0 to 1")
	f.DurationVar(&o.minGrace, "workload-cert-min-grace-period", d.MinGrace, "least that this period may be; never more than half of the life")
	f.Float64Var(&o.jitter, "workload-cert-rotation-jitter", d.Jitter, "part of the life over which renewals are spread, 0 to 1")
	f.DurationVar(&o.rootWindow, "root-change-window", d.RootWindow, "time over which Secrets are rewritten after a change of roots; 0: at once")
	f.StringVar(&o.keyType, "key-type", "ecdsa-p256", "key of workloads: ecdsa-p256, ecdsa-p384, rsa-2048, rsa-3072 or rsa-4096")
	f.BoolVar(&o.pkcs8, "pkcs8-keys", true, "encode keys as PKCS#8; false: as the ancestor did, PKCS#1 or SEC 1")
	f.BoolVar(&o.appendDNS, "append-dns-names", true, "add DNS names for the service accounts of Istio's webhooks")
	f.StringVar(&o.customDNS, "custom-dns-names", "", "further DNS names, comma-separated `SERVICE_ACCOUNT.NAMESPACE:DOMAIN`")
	f.BoolVar(&o.dualUse, "experimental-dual-use", false, "repeat the SPIFFE ID as common name where it fits into 64 characters")
	o.flags.Alias(f, "cert-ttl", "workload-cert-ttl")
}

func (o *options) replicaFlags(f *pflag.FlagSet) {
	f.BoolVar(&o.leaderElect, "leader-elect", true, "write only while holding Lease istio-citadel")
	f.DurationVar(&o.leaseDuration, "lease-duration", 15*time.Second, "how long others wait for a silent holder of the lease")
	f.DurationVar(&o.renewDeadline, "lease-renew-deadline", 10*time.Second, "how long the holder trusts a renewal; less than --lease-duration")
	f.DurationVar(&o.retryPeriod, "lease-retry-period", 2*time.Second, "wait between attempts at the lease")
	f.DurationVar(&o.maxSkew, "max-clock-skew", trust.Backdate/2, "how far this machine's clock may be off the API server's before nothing is made; 0: however far")
	f.IntVar(&o.workers, "max-concurrent-writes", 32, "objects worked on at once")
	f.BoolVar(&o.serverOnly, "server-only", false, "do not run the secret controller")
}

func (o *options) monitorFlags(f *pflag.FlagSet) {
	f.IntVar(&o.monitoringPort, "monitoring-port", 15014, "`port` of /metrics, /healthz, /readyz and /version; 0 or less: none")
	f.BoolVar(&o.profiling, "enable-profiling", false, "serve /debug/pprof on the monitoring port")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json, on standard error")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.BoolVar(&o.logAsJSON, "log_as_json", false, "the same as --log-format json")
	f.StringVar(&o.auditLog, "audit-log", "-", "`file` for the audit records of signatures, JSON lines, made with mode 0600; -: standard output; with --state-dir, if not given: audit.log there")
	f.StringVar(&o.livenessPath, "liveness-probe-path", "", "`file` to touch while citadel is alive, for citadel probe; empty: none")
	f.DurationVar(&o.livenessInterval, "liveness-probe-interval", 0, "how often to touch it; needed with --liveness-probe-path")
}

// retiredFlags keeps manifests of the ancestors working.
func (o *options) retiredFlags(f *pflag.FlagSet) {
	f.StringVar(&o.upstreamCA, "upstream-ca-address", "", "")
	_ = f.MarkHidden("upstream-ca-address") // the flag exists: it stands one line above
	const (
		noUpstream = "there is no upstream CA"
		probes     = "citadel is checked each time that the file of --liveness-probe-path is touched, and by /healthz"
		logs       = "use --log-format and --log-level"
		noCtrlz    = "there is no ControlZ: use the monitoring port"
		noCA       = "certificates of CAs are not issued"
		noPolicy   = "namespaces are chosen by --listened-namespaces and labels"
	)
	for name, why := range map[string]string{
		"org": noUpstream, "requested-ca-cert-ttl": noUpstream, "key-size": "use --key-type",
		"upstream-ca-cert-file": noUpstream, "upstream-auth": noUpstream,
		"probe-check-interval": probes,
		"ctrlz_address":        noCtrlz, "ctrlz_port": noCtrlz,
		"log_output_level": logs, "log_target": logs, "log_stacktrace_level": logs, "log_caller": logs, "log_rotate": logs,
		"log_rotate_max_age": logs, "log_rotate_max_backups": logs, "log_rotate_max_size": logs,
		"v": logs, "vmodule": logs, "stderrthreshold": logs, "log_dir": logs, "log_backtrace_at": logs, // glog, 0.2 to 0.4
		"self-signed-ca-org":                   "the trust domain is the root's organization",
		"self-signed-root-cert-check-interval": "roots are not rotated by themselves", "self-signed-root-cert-grace-period-percentile": "roots are not rotated by themselves",
	} {
		o.flags.Retired(f, name, why, false)
	}
	for name, why := range map[string]string{
		"sds-enabled": "Kubernetes tokens are always accepted", "sign-ca-certs": noCA, "explicit-opt-in": noPolicy,
		"logtostderr": logs, "alsologtostderr": logs, "enable-jitter-for-root-cert-rotator": "roots are not rotated by themselves",
	} {
		o.flags.Retired(f, name, why, true)
	}
}
