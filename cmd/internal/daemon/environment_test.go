package daemon

import (
	"slices"
	"strings"
	"testing"
)

// TestVariablesOfNoFlag: one warning for each, by name and without the value;
// none of those that Kubernetes sets for Services.
func TestVariablesOfNoFlag(t *testing.T) {
	p := parse(t, map[string]string{
		"TEST_CERT_TLT": "secret", "TEST_CERT_TTL": "2h", "TEST_A_TYPO_PORT": "8060", "ISTIO_TEST_X": "x",
		// of Services test, test-port and test-cert
		"TEST_SERVICE_HOST": "10.0.0.1", "TEST_SERVICE_PORT": "80", "TEST_SERVICE_PORT_HTTP_MONITORING": "80",
		"TEST_PORT_80_TCP": "tcp://10.0.0.1:80", "TEST_PORT_80_TCP_PROTO": "tcp", "TEST_PORT_80_TCP_PORT": "80", "TEST_PORT_80_TCP_ADDR": "10.0.0.1",
		"TEST_PORT": "tcp://10.0.0.1:80", "TEST_PORT_PORT": "udp://10.0.0.1:80", "TEST_CERT_PORT": "tcp://[fd00::1]:80", "TEST_CERT_PORT_53_UDP": "udp://10.0.0.1:53",
	})
	want := []string{"TEST_A_TYPO_PORT is ignored: no flag has this variable", "TEST_CERT_TLT is ignored: no flag has this variable"}
	if got := p.flags.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
	if len(p.flags.Problems()) > 0 || p.port != 1 {
		t.Errorf("port %d, problems %v: the Service's URL was taken for the flag's value", p.port, p.flags.Problems())
	}
}

// TestNamesWithVariables: only the environment's values are called so.
func TestNamesWithVariables(t *testing.T) {
	p := parse(t, map[string]string{"TEST_TTL": "3h", "TEST_PORT": "http", "TEST_LOG_NAMES": "z", "TEST_GRPC_PORT": "1"}, "--log_names=y")
	for flag, want := range map[string]string{
		"cert-ttl": "--cert-ttl (set by TEST_TTL)", "port": "--port (set by TEST_PORT)", "log_names": "--log_names", "append-dns-names": "--append-dns-names", "v": "-v",
	} {
		if got := p.flags.Name(flag); got != want {
			t.Errorf("%s is called %s, want %s", flag, got, want)
		}
		if got := p.flags.SetByVariable(flag); got != strings.Contains(want, "set by") {
			t.Errorf("%s is set by a variable: %v", flag, got)
		}
	}
	if problems := p.flags.Problems(); len(problems) != 1 || !strings.HasPrefix(problems[0].Error(), `--port (set by TEST_PORT): "http": `) {
		t.Errorf("problems %v", problems)
	}
	want := []string{"--ttl (set by TEST_TTL) is called --cert-ttl now", "--grpc-port (set by TEST_GRPC_PORT) is ignored: there is no gRPC"}
	if got := p.flags.Warnings(); !slices.Equal(got, want) {
		t.Errorf("warnings %q, want %q", got, want)
	}
}
