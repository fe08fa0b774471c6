package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"citadel/cmd/internal/daemon"
)

// allFlags are citadel's, also those that help does not show.
func allFlags() *pflag.FlagSet {
	flags := daemon.NewFlags("CITADEL_")
	newOptions(flags)
	set := pflag.NewFlagSet("citadel", pflag.ContinueOnError)
	flags.AddTo(set)
	return set
}

// TestFlagsAndDefaults: names and defaults are in people's manifests. The
// ancestor's are of compatibility 1.1, the values of its first page; ours
// follow.
func TestFlagsAndDefaults(t *testing.T) {
	want := map[string]string{
		// the ancestor's
		"listened-namespaces":              "",
		"citadel-storage-namespace":        "istio-system",
		"kube-config":                      "",
		"read-signing-cert-only":           "false",
		"self-signed-ca":                   "false",
		"cert-chain":                       "",
		"signing-cert":                     "",
		"signing-key":                      "",
		"root-cert":                        "",
		"trust-domain":                     "",
		"workload-cert-ttl":                "19h0m0s",
		"max-workload-cert-ttl":            "168h0m0s",
		"workload-cert-grace-period-ratio": "0.5",
		"workload-cert-min-grace-period":   "10m0s",
		"self-signed-ca-cert-ttl":          "87600h0m0s",
		"enable-namespaces-by-default":     "true",
		"server-only":                      "false",
		"pkcs8-keys":                       "true", // false with the ancestor: go-spiffe reads nothing else
		"append-dns-names":                 "true",
		"custom-dns-names":                 "",
		"experimental-dual-use":            "false",
		"grpc-port":                        "8060",
		"grpc-host-identities":             "istio-ca,istio-citadel",
		"monitoring-port":                  "15014",
		"enable-profiling":                 "false",
		"liveness-probe-path":              "",
		"liveness-probe-interval":          "0s",
		"log_as_json":                      "false",
		// ours
		"ca-key-type":                   "ecdsa-p256",
		"key-type":                      "ecdsa-p256",
		"workload-cert-rotation-jitter": "0.1",
		"root-change-window":            "5m0s",
		"leader-elect":                  "true",
		"lease-duration":                "15s",
		"lease-renew-deadline":          "10s",
		"lease-retry-period":            "2s",
		"max-clock-skew":                "1m0s",
		"max-concurrent-writes":         "32",
		"grpc-cert-file":                "",
		"grpc-key-file":                 "",
		"renew-expired-for":             "72h0m0s",
		"grpc-caller-rate":              "20",
		"grpc-caller-burst":             "100",
		"grpc-rate":                     "0",
		"grpc-max-in-flight":            "1000",
		"grpc-max-connections":          "0",

		"grpc-max-connections-per-address": "0",

		"token-audiences":       "istio-ca",
		"token-review-ttl":      "1m0s",
		"oidc-issuer":           "",
		"oidc-audience":         "istio-ca",
		"oidc-jwks-uri":         "",
		"trusted-node-accounts": "",
		"log-format":            "text",
		"log-level":             "info",
		"audit-log":             "-",
		"state-dir":             "",
		"policy":                "false",
		"policy-generation":     "auto",
		"policy-readers":        "",
	}
	got := map[string]string{}
	allFlags().VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		got[f.Name] = f.DefValue
		if f.Usage == "" {
			t.Errorf("--%s has no help", f.Name)
		}
	})
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if value, ok := want[name]; !ok || value != got[name] {
			t.Errorf("--%s has default %q; fixed is %q (known: %v)", name, got[name], value, ok)
		}
	}
	for name := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("--%s is gone", name)
		}
	}
}

// ancestors are all flags that the ancestors ever had (compatibility 1.1), with
// a value that stood in somebody's manifest, and what becomes of each.
var ancestors = map[string]struct{ value, fate string }{
	"listened-namespaces":              {"web", "works"},
	"listened-namespace":               {"web", "alias"},
	"namespace":                        {"web", "alias"},
	"citadel-storage-namespace":        {"ca", "works"},
	"istio-ca-storage-namespace":       {"ca", "alias"},
	"kube-config":                      {"of the test", "works"},
	"read-signing-cert-only":           {"", "works"},
	"self-signed-ca":                   {"", "works"},
	"cert-chain":                       {"", "works"},
	"signing-cert":                     {"", "works"},
	"signing-key":                      {"", "works"},
	"root-cert":                        {"", "works"},
	"trust-domain":                     {"cluster.local", "works"},
	"upstream-ca-address":              {"", "works"}, // refused unless empty
	"org":                              {"Juju org", "retired"},
	"requested-ca-cert-ttl":            {"8760h", "retired"},
	"key-size":                         {"2048", "retired"},
	"workload-cert-ttl":                {"19h", "works"},
	"cert-ttl":                         {"1h", "alias"},
	"max-workload-cert-ttl":            {"168h", "works"},
	"workload-cert-grace-period-ratio": {"0.5", "works"},
	"workload-cert-min-grace-period":   {"10m", "works"},
	"self-signed-ca-cert-ttl":          {"87600h", "works"},
	"ca-cert-ttl":                      {"240h", "alias"},
	"self-signed-ca-org":               {"k8s.cluster.local", "retired"},
	"grpc-host-identities":             {"istio-ca,istio-citadel", "works"},
	"grpc-hostname":                    {"localhost", "alias"},
	"grpc-port":                        {"8060", "works"},
	"server-only":                      {"", "works"},
	"sign-ca-certs":                    {"", "retired"},
	"pkcs8-keys":                       {"", "works"},
	"append-dns-names":                 {"", "works"},
	"custom-dns-names":                 {"a.b:c", "works"},
	"experimental-dual-use":            {"", "works"},
	"sds-enabled":                      {"", "retired"},
	"monitoring-port":                  {"0", "works"},
	"enable-profiling":                 {"", "works"},
	"liveness-probe-path":              {"/tmp/ca.liveness", "works"},
	"liveness-probe-interval":          {"60s", "works"},
	"probe-check-interval":             {"15s", "retired"},
	"ctrlz_address":                    {"localhost", "retired"},
	"ctrlz_port":                       {"9876", "retired"},
	"explicit-opt-in":                  {"", "retired"},
	"upstream-ca-cert-file":            {"root.pem", "retired"},
	"upstream-auth":                    {"mtls", "retired"},
	"logtostderr":                      {"", "retired"},
	"alsologtostderr":                  {"", "retired"},
	"v":                                {"2", "retired"},
	"vmodule":                          {"", "retired"},
	"stderrthreshold":                  {"INFO", "retired"},
	"log_dir":                          {"/var/log", "retired"},
	"log_backtrace_at":                 {":0", "retired"},
	"log_output_level":                 {"default:info", "retired"},
	"log_target":                       {"stdout", "retired"},
	"log_as_json":                      {"", "works"},
	"log_caller":                       {"default", "retired"},
	"log_stacktrace_level":             {"default:none", "retired"},
	"log_rotate":                       {"/var/log/x", "retired"},
	"log_rotate_max_age":               {"30", "retired"},
	"log_rotate_max_backups":           {"1000", "retired"},
	"log_rotate_max_size":              {"104857600", "retired"},
}

// TestAncestorsFlags: each is accepted, works or warns once by its name, and
// booleans need no value.
func TestAncestorsFlags(t *testing.T) {
	for name, a := range ancestors {
		t.Run(name, func(t *testing.T) {
			arg := "--" + name
			if a.value != "" || allFlags().Lookup(name) != nil && allFlags().Lookup(name).NoOptDefVal == "" {
				arg += "=" + a.value
			}
			args := []string{arg, arg}
			switch name {
			case "kube-config":
				args = nil // the test has one of its own
			case "liveness-probe-path":
				args = []string{"--liveness-probe-interval=60s", arg[:len(arg)-len(a.value)] + filepath.Join(t.TempDir(), "ca.liveness")}
			}
			code, stdout, stderr := runCitadel(t, args...)
			if code != daemon.ExitOK || stdout != "" || !strings.Contains(stderr, "authority is not loaded yet") {
				t.Fatalf("%s: exit code %d, %q %q", arg, code, stdout, stderr)
			}
			dashed := "--" + name
			if len(name) == 1 {
				dashed = "-" + name
			}
			want := map[string]string{"alias": dashed + " is called --", "retired": dashed + " is ignored: "}[a.fate]
			switch n := strings.Count(stderr, dashed+" is "); {
			case want == "" && n > 0:
				t.Errorf("warned of: %s", stderr)
			case want != "" && (n != 1 || strings.Count(stderr, want) != 1):
				t.Errorf("%d warnings, want one with %q: %s", n, want, stderr)
			}
		})
	}
}

// TestHiddenFlagsAreTheAncestors: nothing of ours is hidden.
func TestHiddenFlagsAreTheAncestors(t *testing.T) {
	ours := []string{"self-signed-root-cert-check-interval", "self-signed-root-cert-grace-period-percentile", "enable-jitter-for-root-cert-rotator"} // variables of 1.2.9 and later
	allFlags().VisitAll(func(f *pflag.Flag) {
		if _, known := ancestors[f.Name]; f.Hidden && !known && !slices.Contains(ours, f.Name) {
			t.Errorf("--%s is hidden and no ancestor had it", f.Name)
		}
	})
}
