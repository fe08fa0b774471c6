package hosts

import (
	"strings"
	"testing"
)

// TestCitadelUnit: its unit is active when hosts can have certificates (D-1),
// tells how it goes, and one that hangs is ended and started anew (D-2).
func TestCitadelUnit(t *testing.T) {
	t.Parallel()
	h := start(t, "site")
	h.run(t, `
		dpkg -i /run/test/programs/citadel_*.deb
		echo CITADEL_TRUST_DOMAIN=site.example.org >>/etc/default/citadel
		mkdir /etc/systemd/system/citadel.service.d
		printf '[Service]\nWatchdogSec=9s\nTimeoutAbortSec=1s\n' >/etc/systemd/system/citadel.service.d/test.conf
		systemctl daemon-reload
		systemctl start citadel
		openssl s_client -connect 127.0.0.1:8060 -CAfile /var/lib/citadel/ca-cert.pem -verify_return_error -verify_hostname istio-citadel </dev/null >/dev/null 2>&1`)
	show := func() string {
		return h.run(t, "systemctl show --property=ActiveState,StatusText,NRestarts,Result citadel")
	}
	if text := show(); !strings.Contains(text, "ActiveState=active") || !strings.Contains(text, "StatusText=CSR API on port 8060 for site.example.org, signing certificate ends 20") {
		t.Error(text)
	}
	h.run(t, "systemctl kill --signal=STOP citadel")
	within(t, patience, func() error {
		_, err := h.sh("journalctl --unit citadel | grep \"Failed with result 'watchdog'\"")
		return err
	})
	within(t, patience, func() error { _, err := h.sh("systemctl is-active citadel"); return err })
	if text := show(); !strings.Contains(text, "NRestarts=1\n") || !strings.Contains(text, "Result=success") {
		t.Error(text)
	}
	h.run(t, "systemctl stop citadel; systemctl show --property=Result citadel | grep success")
}
