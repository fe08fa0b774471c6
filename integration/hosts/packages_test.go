package hosts

import (
	"testing"
)

// TestPackages live as administrators expect, by either tool: nothing starts by
// itself, an upgrade keeps settings and the certificate and has the new program
// run, and what was obtained outlives the package.
func TestPackages(t *testing.T) {
	t.Parallel()
	const rpm = "rpm --force-debian --dbpath /var/lib/rpm --nodeps " // Debian has it for other systems' packages
	for name, by := range map[string]struct{ install, upgrade, remove string }{
		"rpm": {rpm + "--install /run/test/programs/before/istio-auth-node-agent-*.rpm", rpm + "--upgrade /run/test/programs/istio-auth-node-agent-*.rpm", rpm + "--erase istio-auth-node-agent"},
		"deb": {"dpkg -i /run/test/programs/before/istio-auth-node-agent_*.deb", "dpkg -i --force-confold /run/test/programs/istio-auth-node-agent_*.deb", "dpkg --remove istio-auth-node-agent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := start(t, name)
			h.run(t, by.install)
			h.is(t, "UnitFileState=disabled", "ActiveState=inactive")
			const folders = "stat --format '%U %G %a' /etc/certs /etc/credstore"
			if got := h.run(t, folders); got != "istio-agent istio-certs 755\nroot root 700" {
				t.Error(got)
			}
			h.run(t, `test "$(getent passwd istio-agent | cut -d: -f6,7)" = /:/usr/sbin/nologin`)

			h.invite(t)
			h.run(t, "echo NODE_AGENT_LOG_FORMAT=json >>/etc/default/istio-auth-node-agent; systemctl enable --now "+unit)
			first, process := h.supplied(t, ""), h.property(t, "MainPID")
			h.run(t, by.upgrade)
			h.becomes(t, "UnitFileState=enabled", "ActiveState=active", "NRestarts=0")
			if h.property(t, "MainPID") == process {
				t.Error("the program of before runs on")
			}
			h.run(t, "grep -qx NODE_AGENT_LOG_FORMAT=json /etc/default/istio-auth-node-agent")
			if s := h.supplied(t, ""); s.Serial != first.Serial || s.LastError != "" {
				t.Errorf("%+v", s)
			}

			h.run(t, by.remove)
			h.run(t, `
				! systemctl is-active `+unit+`
				test ! -e /usr/local/bin/node_agent && test ! -e /usr/lib/systemd/system/`+unit+`
				test ! -e /etc/systemd/system/multi-user.target.wants/`+unit+`
				test -s /etc/certs/key.pem && test -s /var/lib/istio-auth-node-agent/joined.json && getent passwd istio-agent
				rm /etc/credstore/citadel-join-token`)
			h.run(t, by.install)
			h.is(t, "UnitFileState=disabled", "ActiveState=inactive")
			h.run(t, "systemctl start "+unit)
			if s := h.supplied(t, ""); s.Serial != first.Serial {
				t.Errorf("%+v", s)
			}
			h.verified(t)
		})
	}
}
