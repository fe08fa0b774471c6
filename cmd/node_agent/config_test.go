package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"citadel/ca/trust"
	"citadel/cmd/internal/daemon"
)

// configure reads flags, environment and file as the command does.
func configure(t *testing.T, env map[string]string, args ...string) (*config, error) {
	t.Helper()
	for _, name := range []string{"CITADEL_ADDRESS", "CERTS_DIR", "STATE_DIRECTORY", "CREDENTIALS_DIRECTORY"} {
		t.Setenv(name, "") // as little as none
	}
	for name, value := range env {
		t.Setenv(name, value)
	}
	flags := daemon.NewFlags("NODE_AGENT_")
	o := newOptions(flags)
	set := pflag.NewFlagSet("node_agent", pflag.ContinueOnError)
	flags.AddTo(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	flags.ReadEnvironment(set)
	o.ancestorsVariables(set)
	if o.configFile != "" {
		flags.ReadFile(set, o.configFile)
	}
	return o.validate(set)
}

// written is a file of a text.
func written(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDefaultConfig(t *testing.T) {
	c, err := configure(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.address != "istio-citadel:8060" || c.addressGiven || c.kind != trust.ECDSAP256 || c.ttl != 19*time.Hour || c.reload != nil || !c.spiffeID.IsZero() ||
		c.stateDir != "/var/lib/istio-auth-node-agent" || c.joinFile != "" || len(c.pins) != 0 ||
		c.dir.Key != "/etc/certs/key.pem" || c.dir.KeyMode != 0o600 || c.dir.CertMode != 0o644 || c.dir.UID != -1 || c.dir.GID != -1 {
		t.Errorf("%+v", c)
	}
}

// TestPrecedence: a flag, else its variable, else the ancestor's variable, else
// the file, else the default (specifications L-5).
func TestPrecedence(t *testing.T) {
	file := written(t, "ca-address: file:1\nkey: /file/k.pem\nworkload-cert-ttl: 3h\nkey-mode: 0640\nca-fingerprint: ["+strings.Repeat("a", 64)+", "+strings.Repeat("b", 64)+"]\n")
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want string // address, key, TTL
	}{
		"default":                    {nil, nil, "istio-citadel:8060 /etc/certs/key.pem 19h0m0s"},
		"file":                       {nil, []string{"--config=" + file}, "file:1 /file/k.pem 3h0m0s"},
		"file, named by a variable":  {map[string]string{"NODE_AGENT_CONFIG": file}, nil, "file:1 /file/k.pem 3h0m0s"},
		"the ancestor's variables":   {map[string]string{"CITADEL_ADDRESS": "old:1", "CERTS_DIR": "/old"}, []string{"--config=" + file}, "old:1 /old/key.pem 3h0m0s"},
		"variables":                  {map[string]string{"NODE_AGENT_CA_ADDRESS": "env:1", "CITADEL_ADDRESS": "old:1", "NODE_AGENT_KEY": "/env/k", "CERTS_DIR": "/old", "NODE_AGENT_WORKLOAD_CERT_TTL": "2h"}, []string{"--config=" + file}, "env:1 /env/k 2h0m0s"},
		"flags":                      {map[string]string{"NODE_AGENT_CA_ADDRESS": "env:1", "CITADEL_ADDRESS": "old:1", "NODE_AGENT_KEY": "/env/k", "CERTS_DIR": "/old", "NODE_AGENT_WORKLOAD_CERT_TTL": "2h"}, []string{"--config=" + file, "--ca-address=flag:1", "--key=/flag/k", "--workload-cert-ttl=1h"}, "flag:1 /flag/k 1h0m0s"},
		"an alias counts as a flag":  {map[string]string{"CERTS_DIR": "/old"}, []string{"--onprem-key=/alias/k"}, "istio-citadel:8060 /alias/k 19h0m0s"},
		"empty variables of theirs":  {map[string]string{"CITADEL_ADDRESS": "", "CERTS_DIR": ""}, nil, "istio-citadel:8060 /etc/certs/key.pem 19h0m0s"},
		"CERTS_DIR for all that are": {map[string]string{"CERTS_DIR": "/old"}, []string{"--cert-chain=/x/c.pem"}, "istio-citadel:8060 /old/key.pem 19h0m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := configure(t, c.env, c.args...)
			if err != nil {
				t.Fatal(err)
			}
			if text := got.address + " " + got.dir.Key + " " + got.ttl.String(); text != c.want {
				t.Errorf("%s, want %s", text, c.want)
			}
			if got.addressGiven == strings.HasPrefix(c.want, "istio-citadel") {
				t.Errorf("the address was given: %v", got.addressGiven)
			}
			if name == "file" && (len(got.pins) != 2 || got.dir.KeyMode != 0o640) {
				t.Errorf("%v, mode %o", got.pins, got.dir.KeyMode)
			}
		})
	}
}

func TestConfig(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		ok   func(*config) bool
	}{
		"fingerprint as openssl writes it": {nil, []string{"--ca-fingerprint=" + strings.TrimSuffix(strings.Repeat("0A:", 32), ":")}, func(c *config) bool { return slices.Equal(c.pins, []string{sum}) }},
		"fingerprints":                     {nil, []string{"--ca-fingerprint=" + sum + ", " + sum}, func(c *config) bool { return len(c.pins) == 2 }},
		"key size":                         {nil, []string{"--key-size=3072"}, func(c *config) bool { return c.kind == trust.RSA3072 }},
		"key type":                         {nil, []string{"--key-type=ecdsa-p384"}, func(c *config) bool { return c.kind == trust.ECDSAP384 }},
		"SPIFFE ID":                        {nil, []string{"--spiffe-id=spiffe://a/ns/b/sa/c"}, func(c *config) bool { return c.spiffeID.String() == "spiffe://a/ns/b/sa/c" }},
		"owner by number":                  {nil, []string{"--owner=12345", "--group=54321"}, func(c *config) bool { return c.dir.UID == 12345 && c.dir.GID == 54321 }},
		"owner by name":                    {nil, []string{"--owner=root", "--group=root"}, func(c *config) bool { return c.dir.UID == 0 && c.dir.GID == 0 }},
		"modes":                            {nil, []string{"--key-mode=640", "--cert-mode=0640"}, func(c *config) bool { return c.dir.KeyMode == 0o640 && c.dir.CertMode == 0o640 }},
		"systemd's state":                  {map[string]string{"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, nil, func(c *config) bool { return c.stateDir == "/var/lib/a" }},
		"systemd's credential":             {map[string]string{"CREDENTIALS_DIRECTORY": "/run/c"}, nil, func(c *config) bool { return c.joinFile == "/run/c/citadel-join-token" }},
		"a file beats the credential":      {map[string]string{"CREDENTIALS_DIRECTORY": "/run/c"}, []string{"--join-token-file=/x"}, func(c *config) bool { return c.joinFile == "/x" }},
		"JSON by the ancestor's flag":      {nil, []string{"--log_as_json"}, func(c *config) bool { return c.logFormat == "json" }},
		"IPv6":                             {nil, []string{"--ca-address=[2001:db8::1]:8060"}, func(c *config) bool { return c.addressGiven }},
		"reload by command":                {nil, []string{"--reload-command=true"}, func(c *config) bool { return c.reload != nil }},
		"reload by unit":                   {nil, []string{"--reload-unit=nginx.service"}, func(c *config) bool { return c.reload != nil }},
		"reload by signal":                 {nil, []string{"--reload-signal=/run/a:b.pid:sighup"}, func(c *config) bool { return c.reload != nil }},
		"no monitoring port":               {nil, []string{"--monitoring-port=-1"}, func(c *config) bool { return c.monitoringPort == -1 }},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := configure(t, c.env, c.args...)
			if err != nil || !c.ok(got) {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
}

// TestBadFlags: one problem each, by the flag's name.
func TestBadFlags(t *testing.T) {
	for arg, want := range map[string]string{
		"--ca-address=istio-citadel":         "is not of the form HOST:PORT",
		"--ca-address=":                      "is not of the form HOST:PORT",
		"--ca-address=https://a:1":           "is not of the form HOST:PORT",
		"--ca-address=a:0":                   "is not of the form HOST:PORT",
		"--ca-server-name=":                  "is empty: any server",
		"--ca-fingerprint=00":                `"00" is no SHA-256 sum: openssl x509`,
		"--key=":                             "is empty",
		"--cert-chain=":                      "is empty",
		"--root-cert=":                       "is empty",
		"--owner=no-such-user":               "unknown user no-such-user",
		"--owner=-1":                         "unknown user -1",
		"--group=no-such-group":              "unknown group no-such-group",
		"--key-mode=0644":                    "others no more than 0640",
		"--key-mode=0":                       "lets the owner read",
		"--key-mode=rw":                      "is no mode",
		"--key-mode=416":                     "is no mode",
		"--cert-mode=0666":                   "others no more than 0644",
		"--workload-cert-ttl=0s":             "below a second",
		"--workload-cert-ttl=-1h":            "below a second",
		"--workload-cert-ttl=90d":            `unknown unit "d"`,
		"--workload-cert-ttl=9999999h":       "invalid duration",
		"--key-type=dsa":                     "unknown key type",
		"--key-size=1024":                    "1024: use 2048, 3072 or 4096",
		"--key-size=big":                     "invalid syntax",
		"--spiffe-id=web":                    "is no SPIFFE ID",
		"--env=gcp":                          "cloud credentials have not been accepted",
		"--env=aws":                          "cloud credentials have not been accepted",
		"--env=k8s":                          "use unspecified or onprem",
		"--platform=k8s":                     "use vm",
		"--reload-unit=-M":                   "is no name of a unit",
		"--reload-signal=/run/nginx.pid":     "is not of the form PIDFILE:SIGNAL",
		"--reload-signal=:HUP":               "is not of the form PIDFILE:SIGNAL",
		"--reload-signal=/run/nginx.pid:NOW": "is not of the form PIDFILE:SIGNAL",
		"--monitoring-port=65536":            "65536 is no port",
		"--log-format=xml":                   "use text or json",
		"--log-level=loud":                   "use debug, info, warn or error",
		"--control-socket=/" + strings.Repeat("a", 107):                  "is longer than the 107 bytes",
		"--join-token-file=citadel-join-v1.eyJhIjoiYiJ9":                 "this is a token itself",
		"--token-file=eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJ4In0.c2lnbmF0dXJl": "this is a token itself",
	} {
		_, err := configure(t, nil, arg)
		flag, value, _ := strings.Cut(arg, "=")
		if err == nil || !strings.HasPrefix(err.Error(), flag+": ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v; want one problem with %q", arg, err, want)
		}
		if strings.HasSuffix(flag, "token-file") && err != nil && strings.Contains(err.Error(), value) {
			t.Errorf("the token is told: %v", err)
		}
	}
}

// TestContradictions: what is right alone and not together; and all problems
// are told at once, with the variable or the line that set them.
func TestContradictions(t *testing.T) {
	file := written(t, "# ours\nlog-level: loud\n")
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want []string
	}{
		"two reloads":      {nil, []string{"--reload-command=a", "--reload-unit=b"}, []string{"--reload-command: --reload-signal and --reload-unit are ways to do one thing"}},
		"two kinds of key": {nil, []string{"--key-size=2048", "--key-type=ecdsa-p256"}, []string{"--key-size: contradicts --key-type"}},
		"all at once": {map[string]string{"CITADEL_ADDRESS": "x", "NODE_AGENT_KEY_TYPE": "dsa"}, []string{"--config=" + file, "--platform=k8s"}, []string{
			`--ca-address (set by CITADEL_ADDRESS): "x" is not of the form`, "--key-type (set by NODE_AGENT_KEY_TYPE): ", "--platform: ", "--log-level (set by " + file + ", line 2): "}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := configure(t, c.env, c.args...)
			if err == nil || strings.Count(err.Error(), "\n") != len(c.want)-1 {
				t.Fatal(err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is missing in: %v", want, err)
				}
			}
		})
	}
}
