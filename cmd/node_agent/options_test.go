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

// allFlags are node_agent's, also those that help does not show.
func allFlags() *pflag.FlagSet {
	flags := daemon.NewFlags("NODE_AGENT_")
	newOptions(flags)
	set := pflag.NewFlagSet("node_agent", pflag.ContinueOnError)
	flags.AddTo(set)
	return set
}

// TestFlagsAndDefaults: names and defaults are in people's units. The
// ancestor's are of compatibility 1.3; ours follow.
func TestFlagsAndDefaults(t *testing.T) {
	want := map[string]string{
		// the ancestor's
		"ca-address":        "istio-citadel:8060",
		"workload-cert-ttl": "19h0m0s", // of 0.6 and 0.7; 90 days later
		"key-size":          "0",       // RSA 2048 with the ancestor; --key-type is ours
		"org":               "",
		"env":               "unspecified",
		"platform":          "vm",
		"cert-chain":        "/etc/certs/cert-chain.pem",
		"key":               "/etc/certs/key.pem",
		"root-cert":         "/etc/certs/root-cert.pem",
		"log_as_json":       "false",
		// ours
		"ca-server-name":  "istio-citadel",
		"ca-root":         "",
		"ca-fingerprint":  "",
		"join-token-file": "",
		"token-file":      "",
		"adopt-from":      "",
		"owner":           "",
		"group":           "",
		"key-mode":        "0600",
		"cert-mode":       "0644",
		"key-type":        "ecdsa-p256",
		"spiffe-id":       "",
		"reload-command":  "",
		"reload-signal":   "",
		"reload-unit":     "",
		"config":          "",
		"state-dir":       "",
		"control-socket":  "/run/istio-auth-node-agent/control.sock",
		"monitoring-port": "15016",
		"policy":          "true",
		"log-format":      "text",
		"log-level":       "info",
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

// ancestors are all flags that the ancestors ever had (compatibility 1.3), with
// a value that stood in somebody's unit, and what becomes of each.
var ancestors = map[string]struct{ value, fate string }{
	"ca-address":             {"istio-ca:8060", "works"},
	"workload-cert-ttl":      {"2160h", "works"},
	"key-size":               {"2048", "works"},
	"org":                    {"Juju org", "works"},
	"env":                    {"onprem", "works"},
	"platform":               {"vm", "works"},
	"cert-chain":             {"a.pem", "works"},
	"key":                    {"b.pem", "works"},
	"root-cert":              {"c.pem", "works"},
	"experimental-dual-use":  {"", "retired"},
	"onprem-cert-chain":      {"a.pem", "alias"},
	"onprem-key":             {"b.pem", "alias"},
	"onprem-root-cert":       {"c.pem", "alias"},
	"gcp-root-cert":          {"/etc/certs/root-cert.pem", "retired"},
	"gcp-ca-address":         {"istio-ca:8060", "retired"},
	"aws-root-cert":          {"/etc/certs/root-cert.pem", "retired"},
	"logtostderr":            {"", "retired"},
	"alsologtostderr":        {"", "retired"},
	"v":                      {"2", "retired"},
	"vmodule":                {"", "retired"},
	"stderrthreshold":        {"INFO", "retired"},
	"log_dir":                {"/var/log", "retired"},
	"log_backtrace_at":       {":0", "retired"},
	"log_output_level":       {"default:info", "retired"},
	"log_target":             {"stdout", "retired"},
	"log_as_json":            {"", "works"},
	"log_caller":             {"default", "retired"},
	"log_stacktrace_level":   {"default:none", "retired"},
	"log_rotate":             {"/var/log/x", "retired"},
	"log_rotate_max_age":     {"30", "retired"},
	"log_rotate_max_backups": {"1000", "retired"},
	"log_rotate_max_size":    {"104857600", "retired"},
}

// TestAncestorsFlags: each is accepted, works or warns once by its name, and
// booleans need no value.
func TestAncestorsFlags(t *testing.T) {
	for name, a := range ancestors {
		t.Run(name, func(t *testing.T) {
			arg := "--" + name
			value := a.value
			if strings.HasSuffix(value, ".pem") && a.fate != "retired" {
				value = filepath.Join(t.TempDir(), value)
			}
			if value != "" || allFlags().Lookup(name) != nil && allFlags().Lookup(name).NoOptDefVal == "" {
				arg += "=" + value
			}
			code, stdout, stderr := runAgent(t, arg, arg)
			if code != daemon.ExitOK || stdout != "" || !strings.Contains(stderr, nothingToJoinWith) {
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
	allFlags().VisitAll(func(f *pflag.Flag) {
		if _, known := ancestors[f.Name]; f.Hidden && !known {
			t.Errorf("--%s is hidden and no ancestor had it", f.Name)
		}
	})
}
