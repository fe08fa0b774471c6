package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestExposure: systemd's own judgement of what a unit may do, from 0 to 10.
func TestExposure(t *testing.T) {
	verdict := regexp.MustCompile(`exposure level for \S+: ([0-9.]+)`)
	for unit, most := range map[string]float64{"istio-auth-node-agent": 2.0, "istio-auth-node-agent-redirect": 1.5, "citadel": 1.5} {
		out := output(t, "systemd-analyze", "security", "--offline=true", "--no-pager", "../../systemd/"+unit+".service")
		said := verdict.FindStringSubmatch(out)
		if said == nil {
			t.Fatal(out)
		}
		level, err := strconv.ParseFloat(said[1], 64)
		if err != nil || level > most {
			t.Errorf("%s: %s, at most %.1f is allowed\n%s", unit, said[1], most, out)
		}
		t.Logf("%s: %.1f", unit, level)
	}
}

// TestUnits: systemd knows every word of them, and they are as promised.
func TestUnits(t *testing.T) {
	for unit, lines := range map[string][]string{
		"istio-auth-node-agent": {"Type=notify", "WatchdogSec=3min", "LoadCredential=citadel-join-token", "Restart=always", "StartLimitIntervalSec=0",
			"After=network-online.target time-sync.target", "Wants=network-online.target", "StateDirectoryMode=0700", "User=istio-agent"},
		"istio-auth-node-agent-redirect": {"Type=oneshot", "RemainAfterExit=yes", "CapabilityBoundingSet=CAP_NET_ADMIN", "User=istio-agent",
			"ExecStart=/usr/local/bin/node_agent redirect install", "ExecStop=/usr/local/bin/node_agent redirect remove"},
		"citadel": {"Type=notify", "WatchdogSec=1min", "Restart=always", "StartLimitIntervalSec=0", "StateDirectoryMode=0700", "User=citadel"},
	} {
		text, err := os.ReadFile("../../systemd/" + unit + ".service")
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s: no %s", unit, line)
			}
		}
		if strings.Contains(string(text), "\nEnvironment=") {
			t.Errorf("%s has an environment, which everybody can read", unit)
		}
		// With a program that is here, for it is not installed.
		there := filepath.Join(t.TempDir(), unit+".service")
		program := regexp.MustCompile(`(?m)^(Exec\w+)=\S+`)
		if err := os.WriteFile(there, program.ReplaceAll(text, []byte("$1=/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		if out := output(t, "systemd-analyze", "verify", "--recursive-errors=no", "--man=no", there); out != "" {
			t.Errorf("%s: %s", unit, out)
		}
	}
}
