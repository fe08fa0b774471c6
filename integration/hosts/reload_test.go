package hosts

import (
	"fmt"
	"testing"
)

// rule of polkit, as the README has it.
const rule = `polkit.addRule(function(action, subject) {
	if (subject.user == "istio-agent" && action.id == "org.freedesktop.systemd1.manage-units" &&
			action.lookup("unit") == "nginx.service" && action.lookup("verb") == "reload-or-try-restart") {
		return polkit.Result.YES;
	}
});
`

// TestReloadUnit: the sandboxed agent may reload the one unit that a rule of
// polkit lets it, and no other.
func TestReloadUnit(t *testing.T) {
	t.Parallel()
	h := start(t, "reloading")
	h.installPackage(t)
	h.invite(t)
	h.write(t, "/etc/polkit-1/rules.d/50-istio-auth-node-agent.rules", "0644", rule)
	h.run(t, "systemctl start dbus polkit nginx")
	h.flags(t, "--reload-unit=nginx.service")
	h.run(t, "systemctl start "+unit)
	first := h.supplied(t, "")
	reloads := func(name string, least int) error {
		_, err := h.sh(fmt.Sprintf("test $(journalctl --unit %s | grep -c 'Reloaded %[1]s') -ge %d", name, least))
		return err
	}
	within(t, patience, func() error { return reloads("nginx.service", 1) })
	h.run(t, "node_agent renew")
	second := h.supplied(t, first.Serial)
	within(t, patience, func() error { return reloads("nginx.service", 2) })
	h.flags(t, "--reload-unit=systemd-journald.service --workload-cert-ttl=20h") // another life: it renews at once
	h.run(t, "systemctl restart "+unit)
	h.supplied(t, second.Serial)
	within(t, patience, func() error {
		_, err := h.sh("systemctl show --property=StatusText " + unit + " | grep 'programs were not made to read the files'")
		return err
	})
}
