package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"citadel/ca"
	"citadel/ca/kube"
	"citadel/ca/trust"
	"citadel/secretcontroller"
)

// source says where the authority comes from.
type source int

const (
	sourceAuto       source = iota // Secret cacerts where it exists, else self-signed
	sourceSelfSigned               // Secret istio-ca-secret
	sourcePlugged                  // Secret cacerts, and nothing else will do
	sourceFiles                    // files named by flags
	sourceStateDir                 // the directory of --state-dir
)

// config is what the flags and the files that they name say, checked.
type config struct {
	*options
	client     kubernetes.Interface // nil with --state-dir
	custom     dynamic.Interface    // nil with --state-dir
	clock      kube.Clock           // of the client's answers
	td         spiffeid.TrustDomain
	source     source
	signer     *trust.Signer // of sourceFiles
	extraRoots trust.Piece   // for every bundle beside the signer's own; may be empty
	caKey      trust.KeyType
	leafKey    trust.KeyType
	dnsNames   ca.DNSNames
	scope      secretcontroller.Scope
	namespace  string

	monitorConnections int // at most, to the monitoring port
}

// validate checks every flag and every file that a flag names, and reports all
// that is wrong at once.
func (o *options) validate(given *pflag.FlagSet) (*config, error) {
	c := &config{options: o, namespace: o.storageNamespace, dnsNames: ca.DNSNames{}}
	if c.stateDir == "" {
		c.checkCluster()
		c.checkNamespaces(given)
	}
	c.checkNamespace("citadel-storage-namespace", c.namespace)
	c.checkAuthority(given)
	c.checkTimes()
	c.checkWorkloads()
	c.checkSigner()
	c.checkAPI()
	c.checkConnections()
	c.checkPolicy()
	c.checkReplicas()
	c.checkLogs()
	c.checkLiveness()
	c.checkStateDir(given)
	if problems := o.flags.Problems(); len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return c, nil
}

func (c *config) checkNamespaces(given *pflag.FlagSet) {
	list := c.listened
	said := given.Changed("listened-namespaces")
	if c.flags.SetByVariable("listened-namespaces") && strings.TrimSpace(list) == "" {
		said = false // a manifest's variable without a value must not widen what NAMESPACE names
	}
	if fallback, ok := os.LookupEnv("NAMESPACE"); ok && !said {
		list = fallback
		c.flags.SetBy("listened-namespaces", "NAMESPACE")
	}
	if strings.TrimSpace(list) != "" && strings.Trim(list, ", ") == "" {
		c.flags.Problem("listened-namespaces", "%q names no namespace: leave it empty for all", list)
	}
	for ns := range strings.SplitSeq(list, ",") {
		if ns = strings.TrimSpace(ns); ns != "" && !slices.Contains(c.scope.Listed, ns) {
			c.checkNamespace("listened-namespaces", ns)
			c.scope.Listed = append(c.scope.Listed, ns)
		}
	}
	c.scope.StorageNamespace, c.scope.EnabledByDefault = c.namespace, c.enableByDefault
}

func (c *config) checkNamespace(flag, ns string) {
	if problems := validation.IsDNS1123Label(ns); len(problems) > 0 {
		c.flags.Problem(flag, "%q is no name of a namespace: %s", ns, problems[0])
	}
}

func (c *config) checkAuthority(given *pflag.FlagSet) {
	name := strings.ReplaceAll(c.trustDomain, "@", ".")
	if name == "" {
		name = "cluster.local"
	}
	var err error
	if c.td, err = spiffeid.TrustDomainFromString(name); err != nil || strings.Contains(name, "/") || len(name) > 255 { // ID-5
		c.flags.Problem("trust-domain", "%q is no SPIFFE trust domain: use at most 255 lower-case letters, digits, dots, dashes and underscores", c.trustDomain)
	}
	if c.caKey, err = trust.ParseKeyType(c.caKeyType); err != nil {
		c.flags.Problem("ca-key-type", "%v", err)
	}
	if c.upstreamCA != "" {
		c.flags.Problem("upstream-ca-address", "an upstream CA is not supported, and a root of its own would not be what you want: "+
			"give the signing certificate by --signing-cert, or remove the flag")
	}
	c.chooseSource(given)
}

// chooseSource never lets a half-given CA of the operator's fall back to a
// self-signed one.
func (c *config) chooseSource(given *pflag.FlagSet) {
	anyFile := c.signingCert != "" || c.signingKey != "" || c.certChain != ""
	switch {
	case anyFile && given.Changed("self-signed-ca") && c.selfSigned:
		c.flags.Problem("self-signed-ca", "contradicts --signing-cert, --signing-key and --cert-chain: give one or the others")
	case anyFile:
		c.source = sourceFiles
		c.readSigner()
		return
	case c.stateDir != "":
		c.source = sourceStateDir
	case !given.Changed("self-signed-ca"):
		c.source = sourceAuto
	case c.selfSigned:
		c.source = sourceSelfSigned
	default:
		c.source = sourcePlugged
	}
	c.readExtraRoots()
}

func (c *config) requireFile(flag, path string) {
	if path == "" {
		c.flags.Problem(flag, "is not given, and an operator's own CA needs --signing-cert, --signing-key and --root-cert")
	}
}

func (c *config) checkTimes() {
	c.positive("workload-cert-ttl", c.workloadTTL)
	c.positive("max-workload-cert-ttl", c.maxWorkloadTTL)
	c.positive("self-signed-ca-cert-ttl", c.selfSignedTTL)
	if c.workloadTTL > c.maxWorkloadTTL {
		c.flags.Problem("workload-cert-ttl", "%s is above %s %s: lower the one or raise the other", c.workloadTTL, c.flags.Name("max-workload-cert-ttl"), c.maxWorkloadTTL)
	}
	if c.selfSignedTTL > 0 && c.selfSignedTTL < c.workloadTTL {
		c.flags.Problem("self-signed-ca-cert-ttl", "%s is below %s %s", c.selfSignedTTL, c.flags.Name("workload-cert-ttl"), c.workloadTTL)
	}
	c.ratio("workload-cert-grace-period-ratio", c.graceRatio)
	c.ratio("workload-cert-rotation-jitter", c.jitter)
	if c.minGrace < 0 {
		c.flags.Problem("workload-cert-min-grace-period", "%s is negative", c.minGrace)
	}
	if c.rootWindow < 0 {
		c.flags.Problem("root-change-window", "%s is negative", c.rootWindow)
	}
}

func (c *config) positive(flag string, d time.Duration) {
	if d <= 0 {
		c.flags.Problem(flag, "%s must be above zero", d)
	} else if d < time.Second {
		c.flags.Problem(flag, "%s is below a second, which certificates cannot express", d)
	}
}

func (c *config) ratio(flag string, r float64) {
	if !(r >= 0 && r <= 1) { // NaN too
		c.flags.Problem(flag, "%v must be between 0 and 1", r)
	}
}

func (c *config) checkWorkloads() {
	var err error
	if c.leafKey, err = trust.ParseKeyType(c.keyType); err != nil {
		c.flags.Problem("key-type", "%v", err)
	}
	td := c.td
	if td.IsZero() { // wrong, and reported: the names can be checked all the same
		td = spiffeid.RequireTrustDomainFromString("cluster.local")
	}
	if err := c.dnsNames.AddCustom(td, c.customDNS); err != nil {
		c.flags.Problem("custom-dns-names", "%s", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if !c.appendDNS {
		return
	}
	if err := c.dnsNames.AddWebhooks(td, c.namespace); err != nil {
		c.flags.Problem("append-dns-names", "%v", err)
	}
}

func (c *config) checkReplicas() {
	if c.workers < 1 || c.workers > 1024 {
		c.flags.Problem("max-concurrent-writes", "%d must be between 1 and 1024", c.workers)
	}
	if c.monitoringPort > 65535 {
		c.flags.Problem("monitoring-port", "%d is no port", c.monitoringPort)
	}
	if c.maxSkew < 0 {
		c.flags.Problem("max-clock-skew", "%s is negative", c.maxSkew)
	}
	if !c.leaderElect {
		return
	}
	if c.leaseDuration < time.Second || c.leaseDuration > time.Hour || c.leaseDuration%time.Second != 0 {
		c.flags.Problem("lease-duration", "%s must be whole seconds, from 1s to 1h: the Lease holds nothing else", c.leaseDuration)
	}
	c.positive("lease-renew-deadline", c.renewDeadline)
	if c.renewDeadline >= c.leaseDuration {
		c.flags.Problem("lease-renew-deadline", "%s must be below %s %s", c.renewDeadline, c.flags.Name("lease-duration"), c.leaseDuration)
	}
	if c.retryPeriod <= 0 || c.retryPeriod*12/10 >= c.renewDeadline {
		c.flags.Problem("lease-retry-period", "%s must be above zero, and with a fifth added below %s %s", c.retryPeriod, c.flags.Name("lease-renew-deadline"), c.renewDeadline)
	}
}

func (c *config) checkLogs() {
	if c.logAsJSON {
		c.logFormat = "json"
	}
	if c.logFormat != "text" && c.logFormat != "json" {
		c.flags.Problem("log-format", "%q: use text or json", c.logFormat)
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.logLevel) {
		c.flags.Problem("log-level", "%q: use debug, info, warn or error", c.logLevel)
	}
	switch c.auditLog {
	case "":
		c.flags.Problem("audit-log", "is empty: signatures are always recorded; use - for standard output")
	case "-":
	default:
		c.checkFolder("audit-log", c.auditLog)
	}
}

func (c *config) checkLiveness() {
	if c.livenessPath == "" {
		return
	}
	c.checkFolder("liveness-probe-path", c.livenessPath)
	if c.livenessInterval <= 0 {
		c.flags.Problem("liveness-probe-interval", "%s must be above zero with %s: it is how often the file is touched", c.livenessInterval, c.flags.Name("liveness-probe-path"))
	}
}

// rotation is what the flags say on renewing.
func (c *config) rotation() secretcontroller.Rotation {
	return secretcontroller.Rotation{GraceRatio: c.graceRatio, MinGrace: c.minGrace, Jitter: c.jitter, RootWindow: c.rootWindow}
}

// shortTTL is the life below which certificates are worth a warning: renewal at
// half of it leaves less time than Secrets take to reach pods.
const shortTTL = time.Minute

// advice is what the values of good flags make worth saying.
func (c *config) advice() []string {
	var out []string
	say := func(flag, format string, args ...any) {
		out = append(out, c.flags.Name(flag)+fmt.Sprintf(format, args...))
	}
	if c.workloadTTL < shortTTL {
		say("workload-cert-ttl", " %s is below %s: certificates may end before renewed ones reach their pods", c.workloadTTL, shortTTL)
	}
	if c.graceRatio < 0.2 || c.graceRatio > 0.8 {
		say("workload-cert-grace-period-ratio", " %v is outside [0.2, 0.8]: certificates are renewed very late or very often", c.graceRatio)
	}
	if c.maxSkew == 0 || c.maxSkew > trust.Backdate/2 {
		say("max-clock-skew", " %s: certificates are backdated by %s, and of two replicas, one so far ahead and one so far behind, the one would take those of the other for not valid yet", c.maxSkew, trust.Backdate)
	}
	if c.livenessInterval != 0 && c.livenessPath == "" {
		say("liveness-probe-interval", " does nothing without --liveness-probe-path")
	}
	return out
}
