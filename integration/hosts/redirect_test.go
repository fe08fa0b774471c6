package hosts

import (
	"fmt"
	"strings"
	"testing"
)

// TestRedirect: the unit captures what its settings say, for as long as it is on:
// over a boot, a new version, and restarts of who empties all tables; and nothing
// is captured any more when it, or the package, is gone.
func TestRedirect(t *testing.T) {
	t.Parallel()
	h := start(t, "captured")
	const capture = "istio-auth-node-agent-redirect.service"
	h.installPackage(t)
	if got := h.run(t, "systemctl show --property=UnitFileState,ActiveState --value "+capture+"; nft list ruleset"); got != "inactive\ndisabled" {
		t.Errorf("from the start: %s", got)
	}
	h.run(t, "echo NODE_AGENT_REDIRECT_INBOUND_PORTS=8000 >>/etc/default/istio-auth-node-agent-redirect; systemctl enable --now "+capture)
	captured := func(when string) {
		t.Helper()
		within(t, patience, func() error { // systemctl does not wait for units that follow another
			rules, err := h.sh("systemctl is-active " + capture + "; nft list ruleset; node_agent redirect show")
			for _, want := range []string{"table inet citadel {", "tcp dport 8000 dnat to :15006", "redirect to :15001", "(istio-agent)\n"} {
				if err == nil && !strings.Contains(rules, want) {
					err = fmt.Errorf("no %q in\n%s", want, rules)
				}
			}
			if err != nil {
				err = fmt.Errorf("%s: %w", when, err)
			}
			return err
		})
	}
	free := func(when string) {
		t.Helper()
		within(t, patience, func() error {
			rules, err := h.sh("nft list ruleset")
			if err == nil && rules != "" {
				err = fmt.Errorf("%s:\n%s", when, rules)
			}
			return err
		})
	}
	captured("enabled")
	if said := h.run(t, "journalctl --output=cat --unit "+capture); !strings.Contains(said, "TCP connections that come to ports 8000 of this host from outside go to the agent's port 15006.") {
		t.Error(said)
	}
	h.run(t, "systemctl stop "+capture)
	free("stopped")
	h.run(t, "systemctl start nftables "+capture)
	captured("started beside nftables")
	h.run(t, "systemctl restart nftables")
	captured("after a restart of nftables")
	h.run(t, "systemctl reload nftables")
	captured("after a reload of nftables")
	h.run(t, "systemctl stop nftables; systemctl start "+capture)
	captured("without nftables")

	if err := h.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if err := h.boot(); err != nil {
		t.Fatal(err)
	}
	captured("after a boot")
	h.run(t, "dpkg -i --force-confold /run/test/programs/istio-auth-node-agent_*.deb")
	captured("after an upgrade")

	h.invite(t)
	h.write(t, "/etc/systemd/system/"+capture+".d/test.conf", "0644", "[Unit]\nPartOf="+unit+"\n[Install]\nWantedBy="+unit+"\n")
	h.run(t, "systemctl daemon-reload; systemctl reenable "+capture+"; systemctl start "+unit)
	captured("with the agent")
	h.run(t, "systemctl stop "+unit)
	free("the agent is stopped")
	h.run(t, "systemctl start "+unit)
	captured("the agent is started")

	h.run(t, "dpkg --remove istio-auth-node-agent")
	free("without the package")
}
