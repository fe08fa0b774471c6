package capture

import (
	"net"
	"strings"
	"testing"
)

const (
	agentUID = 1337
	someUID  = 1000
	someGID  = 1000
)

// addresses of the two hosts, by family.
var families = []struct{ name, here, there, loopback string }{
	{"IPv4", "10.99.0.1", "10.99.0.2", "127.0.0.1"},
	{"IPv6", "fd99::1", "fd99::2", "::1"},
}

type expectation struct {
	uid, gid int
	to       string
	want     string
}

func (h *host) expect(t *testing.T, all ...expectation) {
	t.Helper()
	for _, e := range all {
		if got := h.call(e.uid, e.gid, e.to); got != e.want {
			t.Errorf("%s, user %d, group %d, to %s: %q, not %q", h.name, e.uid, e.gid, e.to, got, e.want)
		}
	}
}

// TestOutbound: what programs open goes to the agent, which learns where it was
// meant for; what is excluded, and the host's talk with itself, does not.
func TestOutbound(t *testing.T) {
	here, there := neighbours(t)
	here.listen("127.0.0.1:15001", originals("agent"))
	here.listen("[::1]:15001", originals("agent"))
	there.listen("[::]:8000", says("there"))
	there.listen("[::]:5432", says("database"))
	here.listen("[::]:8000", says("itself"))
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			to := func(host, port string) string { return net.JoinHostPort(host, port) }
			excluded := f.there + "0"
			there.run("ip", "address", "add", excluded+map[string]string{"IPv4": "/24", "IPv6": "/64"}[f.name], "dev", "eth0", map[string]string{"IPv4": "noprefixroute", "IPv6": "nodad"}[f.name])
			before := expectation{someUID, someGID, to(f.there, "8000"), "there"}
			here.expect(t, before)
			here.install("--exclude-outbound-ports=5000-5999", "--exclude-cidrs="+excluded, "--exclude-gids=77,2000", "--exclude-uids=1337,1338")
			here.expect(t,
				expectation{someUID, someGID, to(f.there, "8000"), "agent " + to(f.there, "8000") + " <nil>"},
				expectation{0, 0, to(f.there, "8000"), "agent " + to(f.there, "8000") + " <nil>"},
				expectation{someUID, someGID, to(f.there, "9"), "agent " + to(f.there, "9") + " <nil>"}, // where nobody listens
				expectation{agentUID, someGID, to(f.there, "8000"), "there"},
				expectation{1338, someGID, to(f.there, "8000"), "there"},
				expectation{1339, someGID, to(f.there, "8000"), "agent " + to(f.there, "8000") + " <nil>"},
				expectation{someUID, 2000, to(f.there, "8000"), "there"},
				expectation{someUID, someGID, to(f.there, "5432"), "database"},
				expectation{someUID, someGID, to(excluded, "8000"), "there"},
				expectation{someUID, someGID, to(f.here, "8000"), "itself"},
				expectation{someUID, someGID, to(f.loopback, "8000"), "itself"},
				expectation{someUID, someGID, to(f.loopback, "15001"), "agent not redirected"})
			here.install("--include-cidrs=192.0.2.0/24,2001:db8::/32," + excluded)
			here.expect(t, before, expectation{someUID, someGID, to(excluded, "8000"), "agent " + to(excluded, "8000") + " <nil>"})
			here.run(agent, "redirect", "remove")
			here.expect(t, before)
		})
	}
}

// TestDualStack: a socket of IPv6 that takes IPv4 too learns the same.
func TestDualStack(t *testing.T) {
	here, there := neighbours(t)
	here.listen("[::]:15001", originals("agent"))
	here.install()
	for _, f := range families {
		to := net.JoinHostPort(f.there, "8000")
		here.expect(t, expectation{someUID, someGID, to, "agent " + to + " <nil>"})
	}
	here.run("ip", "address", "add", "fe80::1/64", "dev", "eth0", "nodad")
	there.run("ip", "address", "add", "fe80::2/64", "dev", "eth0", "nodad")
	there.listen("[::]:8000", says("there"))
	here.listen("[::]:15006", originals("agent"))
	here.install("--inbound-ports=80")
	cable := func(h *host) string { // by number: Go remembers names, and takes all hosts for one
		number, _, _ := strings.Cut(h.run("ip", "-o", "link", "show", "eth0"), ":")
		return "%" + number
	}
	here.expect(t, expectation{someUID, someGID, "[fe80::2" + cable(here) + "]:8000", "there"})
	if got := there.call(someUID, someGID, "[fe80::1"+cable(there)+"]:80"); !strings.HasPrefix(got, "agent [fe80::1%") || !strings.HasSuffix(got, "]:80 <nil>") {
		t.Errorf("to an address of the link: %s", got)
	}
	there.expect(t, expectation{someUID, someGID, "[fe80::1" + cable(there) + "]:15006", "connection refused"})
	here.expect(t, expectation{someUID, someGID, "[fe80::1" + cable(here) + "]:15006", "agent not redirected"})
}

// TestInbound: what comes to the ports of services goes to the agent; nobody
// gets at the agent's own ports, and other ports are left alone.
func TestInbound(t *testing.T) {
	here, there := neighbours(t)
	here.listen("[::]:15006", originals("agent"))
	here.listen("[::]:15001", originals("way out"))
	here.listen("[::]:15016", says("metrics"))
	for _, port := range []string{"8000", "9000", "9005", "22"} {
		here.listen("[::]:"+port, says("program"))
	}
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			from := func(port, want string) expectation {
				return expectation{someUID, someGID, net.JoinHostPort(f.here, port), want}
			}
			captured := func(port string) expectation {
				return from(port, "agent "+net.JoinHostPort(f.here, port)+" <nil>")
			}
			there.expect(t, from("8000", "program"))
			here.install("--inbound-ports=8000,9000-9010", "--exclude-inbound-ports=9005")
			there.expect(t, captured("8000"), captured("9000"), captured("9010"), from("9005", "program"), from("22", "program"),
				from("15006", "connection refused"), from("15001", "connection refused"), from("15016", "metrics"), from("9011", "connection refused"))
			itself := func(host, port, want string) expectation {
				return expectation{someUID, someGID, net.JoinHostPort(host, port), want}
			}
			here.expect(t, itself(f.here, "8000", "program"), itself(f.loopback, "8000", "program"), itself(f.loopback, "15006", "agent not redirected"),
				expectation{agentUID, 0, net.JoinHostPort(f.here, "8000"), "program"}) // as the agent reaches it
			here.install("--inbound-ports=*", "--exclude-inbound-ports=22", "--outbound-port=0")
			there.expect(t, captured("8000"), captured("9011"), captured("15001"), from("22", "program"), from("15006", "connection refused"), from("15016", "metrics"))
			here.install("--inbound-port=0")
			there.expect(t, from("8000", "program"), from("15001", "connection refused"))
			here.run(agent, "redirect", "remove")
			there.expect(t, from("8000", "program"), from("15001", "way out not redirected"))
		})
	}
}

// TestPassedOn: a host between two others captures nothing of what these say to
// each other.
func TestPassedOn(t *testing.T) {
	middle, there := neighbours(t)
	beyond := newHost(t, "beyond")
	middle.run("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "peer1")
	middle.run("ip", "link", "set", "peer1", "netns", beyond.path(), "name", "eth0")
	middle.run("ip", "address", "add", "10.98.0.1/24", "dev", "eth1")
	middle.run("ip", "link", "set", "eth1", "up")
	middle.run("sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
	beyond.run("ip", "address", "add", "10.98.0.2/24", "dev", "eth0")
	beyond.run("ip", "link", "set", "eth0", "up")
	beyond.run("ip", "route", "add", "default", "via", "10.98.0.1")
	there.run("ip", "route", "add", "default", "via", "10.99.0.1")
	middle.listen("[::]:15006", originals("agent"))
	beyond.listen("0.0.0.0:8000", says("beyond"))
	middle.install("--inbound-ports=*")
	there.expect(t, expectation{0, 0, "10.98.0.2:8000", "beyond"}, expectation{0, 0, "10.98.0.1:8000", "agent 10.98.0.1:8000 <nil>"})
}

// TestWithoutIPv6: a host that has none, by its settings or by its kernel.
func TestWithoutIPv6(t *testing.T) {
	here, there := neighbours(t)
	for _, h := range []*host{here, there} {
		h.run("sysctl", "-q", "-w", "net.ipv6.conf.all.disable_ipv6=1")
	}
	here.listen("127.0.0.1:15001", originals("agent"))
	here.listen("0.0.0.0:15006", originals("agent"))
	there.listen("0.0.0.0:8000", says("there"))
	check := func() {
		t.Helper()
		here.expect(t, expectation{someUID, someGID, "10.99.0.2:8000", "agent 10.99.0.2:8000 <nil>"}, expectation{agentUID, 0, "10.99.0.2:8000", "there"})
		there.expect(t, expectation{0, 0, "10.99.0.1:80", "agent 10.99.0.1:80 <nil>"})
	}
	here.install("--inbound-ports=80")
	check()
	here.run(agent, "redirect", "remove")
	here.applyIPv4("80")
	if rules := here.rules(); !strings.HasPrefix(rules, "table ip citadel {") || strings.Contains(rules, "inet") || strings.Contains(rules, "ipv6") {
		t.Error(rules)
	}
	check()
	if out := here.run(agent, "redirect", "show"); !strings.HasPrefix(out, "Table:    ip citadel of nftables\n") {
		t.Error(out)
	}
	here.run(agent, "redirect", "remove")
	here.expect(t, expectation{someUID, someGID, "10.99.0.2:8000", "there"})
	if rules := here.rules(); rules != "" {
		t.Error(rules)
	}
}
