package main

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/catest"
	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
	"citadel/secretcontroller"
)

// configure reads flags and environment as the command does.
func configure(t *testing.T, env map[string]string, args ...string) (*config, error) {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	flags := daemon.NewFlags("CITADEL_")
	o := newOptions(flags)
	set := pflag.NewFlagSet("citadel", pflag.ContinueOnError)
	flags.AddTo(set)
	if err := set.Parse(append([]string{"--kube-config", nowhere(t)}, args...)); err != nil {
		t.Fatal(err)
	}
	flags.ReadEnvironment(set)
	return o.validate(set)
}

func TestDefaultConfig(t *testing.T) {
	c, err := configure(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{
		"trust domain":    c.td == spiffeid.RequireTrustDomainFromString("cluster.local"),
		"source":          c.source == sourceAuto,
		"key types":       c.caKey == trust.ECDSAP256 && c.leafKey == trust.ECDSAP256,
		"namespace":       c.namespace == "istio-system",
		"scope":           len(c.scope.Listed) == 0 && c.scope.StorageNamespace == "istio-system" && c.scope.EnabledByDefault,
		"rotation, told":  c.rotation() == secretcontroller.DefaultRotation(),
		"rotation":        c.rotation() == secretcontroller.Rotation{GraceRatio: 0.5, MinGrace: 10 * time.Minute, Jitter: 0.1, RootWindow: 5 * time.Minute},
		"TTLs":            c.workloadTTL == 19*time.Hour && c.maxWorkloadTTL == 168*time.Hour && c.selfSignedTTL == 10*365*24*time.Hour,
		"webhooks' names": slices.Equal(c.dnsNames[id("istio-system", "istio-galley-service-account")], []string{"istio-galley.istio-system.svc", "istio-galley.istio-system"}),
		"no advice":       len(c.advice()) == 0,
	} {
		if !ok {
			t.Errorf("%s is not as it must be", name)
		}
	}
}

func id(namespace, account string) spiffeid.ID {
	return spiffeid.RequireFromString("spiffe://cluster.local/ns/" + namespace + "/sa/" + account)
}

// operatorsCA returns the flags of an operator's CA in files, signing
// certificate, key, chain and roots in this order, and a file of another root.
func operatorsCA(t *testing.T, now time.Time, name string) (flags []string, otherRoot string, issuing *catest.Issuer) {
	t.Helper()
	issuing = catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: name})
	other := filesOf(t, catest.Root(t, now, catest.Spec{Name: "other"}))
	return filesOf(t, issuing), strings.TrimPrefix(other[3], "--root-cert="), issuing
}

// filesOf returns the flags of a CA in files, in the same order.
func filesOf(t *testing.T, issuing *catest.Issuer) []string {
	t.Helper()
	dir, pieces := t.TempDir(), issuing.Pieces(t)
	var flags []string
	for _, f := range []struct {
		flag, name string
		text       []byte
	}{
		{"signing-cert", "ca-cert.pem", pieces.Cert.PEM}, {"signing-key", "ca-key.pem", pieces.Key.PEM},
		{"cert-chain", "cert-chain.pem", pieces.Chain.PEM}, {"root-cert", "root-cert.pem", pieces.Roots.PEM},
	} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.text, 0o600); err != nil {
			t.Fatal(err)
		}
		flags = append(flags, "--"+f.flag+"="+path)
	}
	return flags
}

// TestUselessCA: one whose pieces fit together and that cannot sign for
// workloads is told with its flag and file, and with all else that is wrong.
func TestUselessCA(t *testing.T) {
	now := time.Now()
	root := catest.Root(t, now, catest.Spec{Name: "root"})
	narrow := func(edit func(*x509.Certificate)) *catest.Issuer {
		return root.Intermediate(t, now, catest.Spec{Name: "issuing", Edit: edit})
	}
	const unverified = "does not verify to its roots"
	for name, c := range map[string]struct {
		issuer *catest.Issuer
		want   string
	}{
		"another domain's": {narrow(func(c *x509.Certificate) {
			c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
		}), unverified},
		"for clients alone": {narrow(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), unverified},
		"below a CA that may have none": {narrow(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }).
			Intermediate(t, now, catest.Spec{Name: "below"}), unverified},
		"for no name of ours": {narrow(func(c *x509.Certificate) {
			c.PermittedDNSDomains, c.PermittedDNSDomainsCritical = []string{"example.org"}, true
		}), "(names come from --append-dns-names and --custom-dns-names)"},
	} {
		files := filesOf(t, c.issuer)
		_, err := configure(t, nil, append(files, "--log-format=xml")...)
		path := strings.TrimPrefix(files[0], "--signing-cert=")
		if err == nil || !strings.Contains(err.Error(), "--signing-cert: "+path+" cannot be used: ") || !strings.Contains(err.Error(), c.want) ||
			!strings.Contains(err.Error(), "--log-format: ") || strings.Count(err.Error(), "\n") != 1 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMissingChain: where a --cert-chain may be what is missing, it is named;
// where a root signed, or a chain is given, it is not at fault.
func TestMissingChain(t *testing.T) {
	now := time.Now()
	middle := catest.Root(t, now, catest.Spec{Name: "root"}).Intermediate(t, now, catest.Spec{Name: "middle"})
	files := filesOf(t, middle.Intermediate(t, now, catest.Spec{Name: "issuing"}))
	other := filesOf(t, catest.Root(t, now, catest.Spec{Name: "other"}).Intermediate(t, now, catest.Spec{Name: "second"}))
	const hint = "; --cert-chain is not given: unless a root signed "
	for name, c := range map[string]struct {
		args []string
		told bool
	}{
		"no chain":           {[]string{files[0], files[1], files[3]}, true},
		"another's root":     {[]string{files[0], files[1], files[2], other[3]}, false},
		"a key, not its own": {[]string{other[0], files[1], other[3]}, false},
	} {
		_, err := configure(t, nil, c.args...)
		if err == nil || strings.Contains(err.Error(), hint) != c.told || c.told && !strings.Contains(err.Error(), "give its issuer CN=middle") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfig(t *testing.T) {
	files, otherRoot, _ := operatorsCA(t, time.Now(), "issuing")
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		ok   func(*config) bool
	}{
		"own trust domain":             {nil, []string{"--trust-domain=Example.org"}, nil},
		"trust domain with an @":       {nil, []string{"--trust-domain=me@example.org"}, func(c *config) bool { return c.td.Name() == "me.example.org" }},
		"listed namespaces":            {nil, []string{"--listened-namespaces= a, b ,,a"}, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"a", "b"}) }},
		"NAMESPACE":                    {map[string]string{"NAMESPACE": "a,b"}, nil, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"a", "b"}) }},
		"NAMESPACE is empty":           {map[string]string{"NAMESPACE": ""}, nil, func(c *config) bool { return len(c.scope.Listed) == 0 }},
		"a flag beats NAMESPACE":       {map[string]string{"NAMESPACE": "a"}, []string{"--listened-namespaces=b"}, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"b"}) }},
		"an empty flag beats it too":   {map[string]string{"NAMESPACE": "a"}, []string{"--listened-namespaces="}, func(c *config) bool { return len(c.scope.Listed) == 0 }},
		"an alias beats it":            {map[string]string{"NAMESPACE": "a"}, []string{"--listened-namespace=b"}, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"b"}) }},
		"a variable beats it":          {map[string]string{"NAMESPACE": "a", "CITADEL_LISTENED_NAMESPACES": "b"}, nil, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"b"}) }},
		"an empty variable does not":   {map[string]string{"NAMESPACE": "a", "CITADEL_LISTENED_NAMESPACES": ""}, nil, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"a"}) }},
		"nor a blank one of an alias":  {map[string]string{"NAMESPACE": "a", "CITADEL_LISTENED_NAMESPACE": " "}, nil, func(c *config) bool { return slices.Equal(c.scope.Listed, []string{"a"}) }},
		"both are empty":               {map[string]string{"NAMESPACE": "", "CITADEL_LISTENED_NAMESPACES": ""}, nil, func(c *config) bool { return len(c.scope.Listed) == 0 }},
		"storage namespace":            {nil, []string{"--citadel-storage-namespace=ca"}, func(c *config) bool { return c.namespace == "ca" && c.scope.StorageNamespace == "ca" }},
		"opt-in":                       {nil, []string{"--enable-namespaces-by-default=false"}, func(c *config) bool { return !c.scope.EnabledByDefault }},
		"self-signed":                  {nil, []string{"--self-signed-ca"}, func(c *config) bool { return c.source == sourceSelfSigned }},
		"self-signed by environment":   {map[string]string{"CITADEL_SELF_SIGNED_CA": "true"}, nil, func(c *config) bool { return c.source == sourceSelfSigned }},
		"self-signed with a root more": {nil, []string{"--self-signed-ca", "--root-cert=" + otherRoot}, func(c *config) bool { return c.source == sourceSelfSigned }},
		"not self-signed":              {nil, []string{"--self-signed-ca=false"}, func(c *config) bool { return c.source == sourcePlugged }},
		"files":                        {nil, files, func(c *config) bool { return c.source == sourceFiles }},
		"files, not self-signed":       {nil, append([]string{"--self-signed-ca=false"}, files...), func(c *config) bool { return c.source == sourceFiles }},
		"TTLs that are equal":          {nil, []string{"--workload-cert-ttl=168h"}, func(c *config) bool { return c.workloadTTL == c.maxWorkloadTTL }},
		"a TTL of a minute":            {nil, []string{"--workload-cert-ttl=1m"}, func(c *config) bool { return c.workloadTTL == time.Minute && len(c.advice()) == 0 }},
		"a TTL worth a word":           {nil, []string{"--workload-cert-ttl=2s"}, func(c *config) bool { return strings.Contains(c.advice()[0], "--workload-cert-ttl 2s is below 1m0s") }},
		"liveness, no interval":        {nil, []string{"--liveness-probe-path=x"}, nil},
		"liveness, an interval":        {nil, []string{"--liveness-probe-path=x", "--liveness-probe-interval=1m"}, func(c *config) bool { return len(c.advice()) == 0 }},
		"liveness, nothing but that": {nil, []string{"--liveness-probe-interval=1m"}, func(c *config) bool {
			return strings.Contains(c.advice()[0], "does nothing without --liveness-probe-path")
		}},
		"ratios at their ends": {nil, []string{"--workload-cert-grace-period-ratio=0", "--workload-cert-rotation-jitter=1"}, func(c *config) bool { return len(c.advice()) == 1 }},
		"ratio worth a word":   {nil, []string{"--workload-cert-grace-period-ratio=0.81"}, func(c *config) bool { return strings.Contains(c.advice()[0], "outside [0.2, 0.8]") }},
		"key types":            {nil, []string{"--ca-key-type=rsa-4096", "--key-type=RSA-2048"}, func(c *config) bool { return c.caKey == trust.RSA4096 && c.leafKey == trust.RSA2048 }},
		"no webhooks' names":   {nil, []string{"--append-dns-names=false"}, func(c *config) bool { return len(c.dnsNames) == 0 }},
		"names of the operator's": {nil, []string{"--append-dns-names=false", "--custom-dns-names=a.web:a.example,a.web:b.example"}, func(c *config) bool {
			return slices.Equal(c.dnsNames[id("web", "a")], []string{"a.example", "b.example"})
		}},
		"no monitoring port":          {nil, []string{"--monitoring-port=-1"}, func(c *config) bool { return c.monitoringPort == -1 }},
		"no election: times are free": {nil, []string{"--leader-elect=false", "--lease-duration=0s", "--lease-retry-period=1h"}, func(c *config) bool { return !c.leaderElect }},
		"clocks are never judged":     {nil, []string{"--max-clock-skew=0"}, func(c *config) bool { return strings.Contains(c.advice()[0], "--max-clock-skew 0s: ") }},
		"clocks are hardly judged":    {nil, []string{"--max-clock-skew=3m"}, func(c *config) bool { return strings.Contains(c.advice()[0], "--max-clock-skew 3m0s: ") }},
		"one is ahead, one behind":    {nil, []string{"--max-clock-skew=61s"}, func(c *config) bool { return strings.Contains(c.advice()[0], "--max-clock-skew 1m1s: ") }},
		"clocks are judged well":      {nil, []string{"--max-clock-skew=30s"}, func(c *config) bool { return len(c.advice()) == 0 }},
		"JSON by the ancestor's flag": {nil, []string{"--log_as_json"}, func(c *config) bool { return c.logFormat == "json" }},
		"server only":                 {nil, []string{"--server-only"}, func(c *config) bool { return c.serverOnly && len(c.advice()) == 0 }},
		"server only, of nothing":     {nil, []string{"--server-only", "--grpc-port=0"}, nil},
		"names of the CSR API": {nil, []string{"--citadel-storage-namespace=ca"}, func(c *config) bool {
			return slices.Equal(c.serverNames, []string{"istio-ca", "istio-citadel", "istio-citadel.ca", "istio-citadel.ca.svc", "istio-citadel.ca.svc.cluster.local"})
		}},
		"addresses of the CSR API": {nil, []string{"--grpc-host-identities=ca.example, 192.0.2.1,2001:db8::1"}, func(c *config) bool {
			return slices.Equal(c.serverNames[:2], []string{"ca.example", "istio-citadel"}) && len(c.serverNames) == 5 && len(c.serverAddrs) == 2 // compatibility 5.1
		}},
		"names that are none":           {nil, []string{"--grpc-host-identities=a_b"}, nil},
		"port that is none":             {nil, []string{"--grpc-port=65536"}, nil},
		"certificate without key":       {nil, []string{"--grpc-cert-file=/dev/null"}, nil},
		"certificate that is not there": {nil, []string{"--grpc-cert-file=/nowhere/a", "--grpc-key-file=/nowhere/b"}, nil},
		"negative grace for expired":    {nil, []string{"--renew-expired-for=-1s"}, nil},
		"negative review":               {nil, []string{"--token-review-ttl=-1s"}, nil},
		"tokens for anybody":            {nil, []string{"--token-audiences=,"}, nil},
		"negative rate":                 {nil, []string{"--grpc-rate=-1"}, nil},
		"rate that is none":             {nil, []string{"--grpc-caller-rate=NaN"}, nil},
		"burst of nothing":              {nil, []string{"--grpc-caller-burst=0"}, nil},
		"nobody in flight":              {nil, []string{"--grpc-max-in-flight=0"}, nil},
		"node proxies":                  {nil, []string{"--trusted-node-accounts=istio-system/ztunnel, a/b"}, func(c *config) bool { return slices.Equal(c.trustedNodes, []string{"istio-system/ztunnel", "a/b"}) }},
		"node proxy of no namespace":    {nil, []string{"--trusted-node-accounts=ztunnel"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := configure(t, c.env, c.args...)
			switch {
			case c.ok == nil && err == nil:
				t.Error("accepted")
			case c.ok != nil && err != nil:
				t.Error(err)
			case c.ok != nil && !c.ok(got):
				t.Errorf("scope %+v, source %d, names %v, advice %q", got.scope, got.source, got.dnsNames, got.advice())
			}
		})
	}
}

// TestBadFlags: one problem each, by the flag's name.
func TestBadFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--trust-domain=a b":                            "is no SPIFFE trust domain",
		"--trust-domain=spiffe://a":                     "is no SPIFFE trust domain",
		"--trust-domain=a/b":                            "is no SPIFFE trust domain",
		"--trust-domain=" + strings.Repeat("a", 256):    "is no SPIFFE trust domain",
		"--listened-namespaces=a,kube system":           `"kube system" is no name of a namespace`,
		"--listened-namespaces=" + string([]byte{0xff}): "is no name of a namespace",
		"--citadel-storage-namespace=Ca":                `"Ca" is no name of a namespace`,
		"--workload-cert-ttl=0s":                        "0s must be above zero",
		"--workload-cert-ttl=-1h":                       "-1h0m0s must be above zero",
		"--workload-cert-ttl=1ms":                       "1ms is below a second",
		"--workload-cert-ttl=168h1ns":                   "above --max-workload-cert-ttl 168h0m0s",
		"--self-signed-ca-cert-ttl=1h":                  "1h0m0s is below --workload-cert-ttl 19h0m0s",
		"--workload-cert-grace-period-ratio=NaN":        "must be between 0 and 1",
		"--workload-cert-rotation-jitter=Inf":           "must be between 0 and 1",
		"--max-concurrent-writes=1025":                  "must be between 1 and 1024",
		"--monitoring-port=65536":                       "65536 is no port",
		"--lease-duration=10s":                          "must be below --lease-duration 10s",
		"--lease-retry-period=9s":                       "with a fifth added below --lease-renew-deadline 10s",
		"--max-clock-skew=-1s":                          "-1s is negative",
		"--custom-dns-names=a.web:*":                    "is not a DNS name",
		"--custom-dns-names=a.web:b.example/path":       "is not a DNS name",
		"--key-type=":                                   "unknown key type",
		"--audit-log=" + filepath.Join("no", "folder"):  "folder no of",
		"--log-level=INFO+1":                            "use debug, info, warn or error",
		"--listened-namespaces=,":                       `"," names no namespace`,
		"--lease-duration=15500ms":                      "15.5s must be whole seconds, from 1s to 1h",
		"--audit-log=" + t.TempDir():                    "is a folder: name a file",
		"--kube-config=missing":                         "read kubeconfig missing: no such file or directory",
		"--root-cert=missing":                           "cannot read missing: no such file or directory",
		"--root-cert=config_test.go":                    "config_test.go holds no PEM certificate",
	} {
		_, err := configure(t, nil, arg)
		flag, _, _ := strings.Cut(arg, "=")
		if err == nil || !strings.Contains(err.Error(), want) || strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%s: %v; want one problem with %q", arg, err, want)
			continue
		}
		if named, _, _ := strings.Cut(err.Error(), ":"); named != flag && flag != "--lease-duration" {
			t.Errorf("%s: the problem is of %s", arg, named)
		}
	}
}

// TestBadFiles: each file that is wrong is told with its flag, all at once; and
// where each is right alone, the flags of those that do not fit together.
func TestBadFiles(t *testing.T) {
	files, otherRoot, _ := operatorsCA(t, time.Now(), "issuing")
	strangers, _, _ := operatorsCA(t, time.Now(), "stranger")
	key := strings.TrimPrefix(files[1], "--signing-key=")
	for name, c := range map[string]struct {
		args []string
		want []string // one for each line
	}{
		"all missing": {[]string{"--signing-cert=a", "--signing-key=b", "--cert-chain=c", "--root-cert=d"}, []string{
			"--signing-cert: cannot read a: no such file or directory", "--signing-key: cannot read b: no such file",
			"--cert-chain: cannot read c: no such file", "--root-cert: cannot read d: no such file"}},
		"all another kind": {[]string{"--signing-cert=" + key, "--signing-key=" + otherRoot, "--cert-chain=" + t.TempDir(), "--root-cert=config_test.go"}, []string{
			"--signing-cert: " + key + ` holds a PEM block "PRIVATE KEY" where only certificates belong`,
			"--signing-key: " + otherRoot + " holds a certificate where a private key belongs",
			": is a directory", "--root-cert: config_test.go holds no PEM certificate"}},
		"one missing, one not given": {[]string{files[0], "--signing-key=b"}, []string{"--root-cert: is not given", "--signing-key: cannot read b"}},
		"another's key":              {[]string{files[0], strangers[1], files[2], files[3]}, []string{"signing key --signing-key " + strings.TrimPrefix(strangers[1], "--signing-key=") + ": the cert does not match the key: it is not the key of --signing-cert "}},
		"another's root":             {append(files[:3:3], "--root-cert="+otherRoot), []string{"root certificates --root-cert " + otherRoot + ": the chain does not reach the root"}},
		"a further root is no CA":    {[]string{"--root-cert=" + leaf(t)}, []string{"root certificates --root-cert "}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := configure(t, nil, c.args...)
			if err == nil {
				t.Fatal("accepted")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(c.want) {
				t.Errorf("%d problems: %v", len(lines), err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
			if strings.Contains(err.Error(), "KEY-----") {
				t.Errorf("quotes the key: %v", err)
			}
		})
	}
}

// leaf is a file with a certificate that is no CA's.
func leaf(t *testing.T) string {
	t.Helper()
	now := time.Now()
	cert := catest.Root(t, now, catest.Spec{Name: "leaf", Edit: func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }})
	path := filepath.Join(t.TempDir(), "leaf.pem")
	if err := os.WriteFile(path, cert.PEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestProblemsNameTheirVariable, also where the variable's value is at fault
// with another flag.
func TestProblemsNameTheirVariable(t *testing.T) {
	_, err := configure(t, map[string]string{
		"CITADEL_CERT_TTL": "200h", "CITADEL_MAX_WORKLOAD_CERT_TTL": "100h", "CITADEL_ROOT_CERT": "missing", "NAMESPACE": "Not_Ok",
	}, "--lease-duration=0s")
	for _, want := range []string{
		"--workload-cert-ttl (set by CITADEL_CERT_TTL): 200h0m0s is above --max-workload-cert-ttl (set by CITADEL_MAX_WORKLOAD_CERT_TTL) 100h0m0s",
		"--root-cert (set by CITADEL_ROOT_CERT): cannot read missing", "--listened-namespaces (set by NAMESPACE): ", "--lease-duration: 0s",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}
