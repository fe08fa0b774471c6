package daemon

import (
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
)

// program is a set of flags as a daemon has them.
type program struct {
	flags *Flags
	set   *pflag.FlagSet

	ttl   time.Duration
	port  int
	dns   bool
	names string
}

func newProgram() *program {
	p := &program{flags: NewFlags("TEST_"), set: pflag.NewFlagSet("test", pflag.ContinueOnError)}
	certs := p.flags.Section("Certificates")
	certs.DurationVar(&p.ttl, "cert-ttl", time.Hour, "life of `certificates`")
	certs.BoolVar(&p.dns, "append-dns-names", true, "add names")
	net := p.flags.Section("Network")
	net.IntVar(&p.port, "port", 1, "port")
	net.StringVar(&p.names, "log_names", "x", "with underscores")
	old := p.flags.Section("Retired")
	p.flags.Alias(certs, "ttl", "cert-ttl")
	p.flags.Alias(certs, "dns", "append-dns-names")
	p.flags.Retired(old, "grpc-port", "there is no gRPC", false)
	p.flags.Retired(old, "v", "use a level", false)
	p.flags.Retired(old, "sds-enabled", "there is no SDS", true)
	p.flags.AddTo(p.set)
	return p
}

// parse reads arguments and then the environment, as a daemon does.
func parse(t *testing.T, env map[string]string, args ...string) *program {
	t.Helper()
	for name, value := range env {
		t.Setenv(name, value)
	}
	p := newProgram()
	if err := p.set.Parse(args); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	p.flags.ReadEnvironment(p.set)
	return p
}

func TestFlagsAndEnvironment(t *testing.T) {
	for name, c := range map[string]struct {
		env   map[string]string
		args  []string
		ttl   time.Duration
		dns   bool
		names string
	}{
		"defaults":                         {nil, nil, time.Hour, true, "x"},
		"flags":                            {nil, []string{"--cert-ttl=2h", "--append-dns-names=false", "--log_names", "y"}, 2 * time.Hour, false, "y"},
		"environment":                      {map[string]string{"TEST_CERT_TTL": "3h", "TEST_APPEND_DNS_NAMES": "false", "TEST_LOG_NAMES": "z"}, nil, 3 * time.Hour, false, "z"},
		"flag beats environment":           {map[string]string{"TEST_CERT_TTL": "3h", "TEST_LOG_NAMES": "z"}, []string{"--cert-ttl=2h"}, 2 * time.Hour, true, "z"},
		"default given as flag beats too":  {map[string]string{"TEST_CERT_TTL": "3h"}, []string{"--cert-ttl=1h"}, time.Hour, true, "x"},
		"others' prefix":                   {map[string]string{"CERT_TTL": "3h", "XTEST_CERT_TTL": "4h"}, nil, time.Hour, true, "x"},
		"alias":                            {nil, []string{"--ttl=5h", "--dns=false"}, 5 * time.Hour, false, "x"},
		"alias without value":              {nil, []string{"--append-dns-names=false", "--dns"}, time.Hour, true, "x"},
		"alias beats environment":          {map[string]string{"TEST_CERT_TTL": "3h"}, []string{"--ttl=5h"}, 5 * time.Hour, true, "x"},
		"alias by environment":             {map[string]string{"TEST_TTL": "6h"}, nil, 6 * time.Hour, true, "x"},
		"flag beats alias's environment":   {map[string]string{"TEST_TTL": "6h"}, []string{"--cert-ttl=2h"}, 2 * time.Hour, true, "x"},
		"name beats alias, in environment": {map[string]string{"TEST_TTL": "6h", "TEST_CERT_TTL": "3h"}, nil, 3 * time.Hour, true, "x"},
		"of alias and flag the later":      {nil, []string{"--ttl=5h", "--cert-ttl=2h"}, 2 * time.Hour, true, "x"},
		"empty text from the environment":  {map[string]string{"TEST_LOG_NAMES": ""}, nil, time.Hour, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := parse(t, c.env, c.args...)
			if p.ttl != c.ttl || p.dns != c.dns || p.names != c.names || len(p.flags.Problems()) > 0 {
				t.Errorf("ttl %s, dns %v, names %q, problems %v; want %s, %v, %q", p.ttl, p.dns, p.names, p.flags.Problems(), c.ttl, c.dns, c.names)
			}
		})
	}
}

// TestProblemsAreCollected: all at once, each by its flag's name, also those of
// the environment.
func TestProblemsAreCollected(t *testing.T) {
	p := parse(t, map[string]string{"TEST_APPEND_DNS_NAMES": "perhaps"}, "--cert-ttl=soon", "--port", "http", "--ttl=never", "--log_names=y")
	p.flags.Problem("log_names", "%q is no name of %d", p.names, 7)
	var got []string
	for _, problem := range p.flags.Problems() {
		got = append(got, problem.Error())
	}
	for i, want := range []string{`--cert-ttl: "soon": `, `--port: "http": `, `--ttl: "never": `, `--append-dns-names (set by TEST_APPEND_DNS_NAMES): "perhaps": `, `--log_names: "y" is no name of 7`} {
		if i >= len(got) || !strings.HasPrefix(got[i], want) {
			t.Errorf("problem %d is not %s…: %q", i, want, got)
		}
	}
	if len(got) != 5 {
		t.Errorf("%d problems: %q", len(got), got)
	}
	if p.ttl != time.Hour || p.port != 1 {
		t.Errorf("what does not parse left ttl %s, port %d", p.ttl, p.port)
	}
}

func TestUnknownFlagsAndMissingValuesFail(t *testing.T) {
	for _, arg := range []string{"--no-such-flag", "--cert-ttl", "--grpc-port", "-x"} {
		if err := newProgram().set.Parse([]string{arg}); err == nil {
			t.Errorf("%s was accepted", arg)
		}
	}
}

// TestReportUnknown: by name and without a value; what is a flag's value is
// none itself.
func TestReportUnknown(t *testing.T) {
	for args, want := range map[string]string{
		"":                                      "",
		"--cert-ttl 2h --append-dns-names -v 2": "",
		"--no-such=1 -x --nor-this 2 -y=3":      "--no-such -x --nor-this -y",
		"--log_names --no-such":                 "", // its value
		"--log_names=a --no-such":               "--no-such",
		"--append-dns-names --no-such":          "--no-such", // a boolean takes no further argument
		"-v --no-such --nor-this":               "--nor-this",
		"-v2 --no-such":                         "--no-such",
		"-- --no-such":                          "",
		"a - -v":                                "",
		"-= --= --=x":                           "-= --= --=",
		"---no-such ---cert-ttl=1 ---v":         "---no-such ---cert-ttl ---v", // none has three
		"-é -éx=1 -\xff":                        "-é -é -\uFFFD",
		"--log_names ---x":                      "",
	} {
		p := newProgram()
		p.flags.ReportUnknown(p.set, strings.Fields(args))
		var got []string
		for _, problem := range p.flags.Problems() {
			got = append(got, strings.TrimPrefix(problem.Error(), "unknown flag: "))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}

// TestWellFormed: what pflag stops at is replaced, so that it reads the rest;
// values stay what they are.
func TestWellFormed(t *testing.T) {
	for args, want := range map[string]string{
		"---x --=y --= --no-such=1 -é a - -- --=": "--? --?= --?= --no-such=1 -é a - -- --=",
		"--log_names ---x ---x=1":                 "--log_names ---x --?=",
	} {
		p := newProgram()
		p.set.ParseErrorsAllowlist.UnknownFlags = true
		got := WellFormed(p.set, strings.Fields(args))
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %q", args, got)
		}
		if err := p.set.Parse(got); err != nil {
			t.Errorf("%s: %v", args, err)
		}
	}
}

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want []string
	}{
		"none":             {nil, []string{"--cert-ttl=1h"}, nil},
		"alias":            {nil, []string{"--ttl=1h"}, []string{"--ttl is called --cert-ttl now"}},
		"alias twice":      {nil, []string{"--ttl=1h", "--ttl=2h"}, []string{"--ttl is called --cert-ttl now"}},
		"retired":          {nil, []string{"--grpc-port=8060", "--grpc-port", "1"}, []string{"--grpc-port is ignored: there is no gRPC"}},
		"retired boolean":  {nil, []string{"--sds-enabled", "--sds-enabled=false"}, []string{"--sds-enabled is ignored: there is no SDS"}},
		"retired anything": {nil, []string{"--sds-enabled=perhaps", "--grpc-port=x"}, []string{"--sds-enabled is ignored: there is no SDS", "--grpc-port is ignored: there is no gRPC"}},
		"environment":      {map[string]string{"TEST_GRPC_PORT": "1", "TEST_TTL": "1h"}, nil, []string{"--ttl (set by TEST_TTL) is called --cert-ttl now", "--grpc-port (set by TEST_GRPC_PORT) is ignored: there is no gRPC"}},
		"one letter":       {nil, []string{"-v", "2", "-v=3", "-v4", "--v=5"}, []string{"-v is ignored: use a level"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := parse(t, c.env, c.args...)
			if !slices.Equal(p.flags.Warnings(), c.want) || len(p.flags.Problems()) > 0 {
				t.Errorf("warnings %q, problems %v; want %q", p.flags.Warnings(), p.flags.Problems(), c.want)
			}
		})
	}
}

// TestChangedByAlias: who asks whether a flag was given must hear of its
// aliases and variables too.
func TestChangedByAlias(t *testing.T) {
	for name, c := range map[string]struct {
		env  map[string]string
		args []string
		want bool
	}{
		"not given": {nil, nil, false}, "flag": {nil, []string{"--cert-ttl=1h"}, true}, "alias": {nil, []string{"--ttl=1h"}, true},
		"environment": {map[string]string{"TEST_CERT_TTL": "1h"}, nil, true}, "alias by environment": {map[string]string{"TEST_TTL": "1h"}, nil, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := parse(t, c.env, c.args...).set.Changed("cert-ttl"); got != c.want {
				t.Errorf("given: %v", got)
			}
		})
	}
}

func TestVariable(t *testing.T) {
	f := NewFlags("CITADEL_")
	for name, want := range map[string]string{
		"trust-domain": "CITADEL_TRUST_DOMAIN", "log_as_json": "CITADEL_LOG_AS_JSON", "org": "CITADEL_ORG",
	} {
		if got := f.Variable(name); got != want {
			t.Errorf("--%s is set by %s, must be %s", name, got, want)
		}
	}
}

// TestUsage shows sections and their flags in the order they were added, and
// neither aliases nor what is retired.
func TestUsage(t *testing.T) {
	var out strings.Builder
	p := newProgram()
	p.flags.Usage(&out)
	text := out.String()
	last := 0
	for _, want := range []string{"\nCertificates:\n", "--cert-ttl certificates", "(default 1h0m0s)", "--append-dns-names", "(default true)", "\nNetwork:\n", "--port int", "--log_names string"} {
		i := strings.Index(text[last:], want)
		if i < 0 {
			t.Fatalf("%q is missing, or out of order, in\n%s", want, text)
		}
		last += i
	}
	for _, hidden := range []string{"--ttl", "--dns", "--grpc-port", "--sds-enabled", "Retired"} {
		if strings.Contains(text, hidden) {
			t.Errorf("shows %s", hidden)
		}
	}
}

// TestTokensAreNotRepeated: whichever flag or variable one was given to by
// mistake, it is told so, without it.
func TestTokensAreNotRepeated(t *testing.T) {
	const secret = "c2VjcmV0"
	for _, token := range []string{"citadel-join-v1." + secret, " citadel-join.0123456789." + secret, "host:citadel-join-v1." + secret, "eyJ" + secret + ".eyJ9.x"} {
		for _, p := range []*program{
			parse(t, nil, "--log_names", token), parse(t, nil, "--port="+token), parse(t, nil, "--ttl="+token),
			parse(t, map[string]string{"TEST_LOG_NAMES": token}),
		} {
			problems := p.flags.Problems()
			if len(problems) != 1 || strings.Contains(problems[0].Error(), secret) || !strings.Contains(problems[0].Error(), "this is a token itself") {
				t.Errorf("%q: %v", token, problems)
			}
			if p.names != "x" || p.port != 1 {
				t.Errorf("%q counts: %q, %d", token, p.names, p.port)
			}
		}
		if err := os.Unsetenv("TEST_LOG_NAMES"); err != nil {
			t.Fatal(err)
		}
	}
	if p := parse(t, nil, "--log_names=/etc/credstore/citadel-join-token"); len(p.flags.Problems()) > 0 {
		t.Errorf("a file's name is no token: %v", p.flags.Problems())
	}
}
