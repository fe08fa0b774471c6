package hosts

import (
	"strings"
	"testing"
	"time"
)

// TestHost: two commands bring it from nothing to a certificate, which then
// outlives the token, other settings, a crash, reboots and a power cut.
func TestHost(t *testing.T) {
	t.Parallel()
	h := start(t, "host")
	h.installPackage(t)
	h.is(t, "UnitFileState=disabled", "ActiveState=inactive")
	if got := h.run(t, "stat --format '%U %G %a' /etc/certs /etc/credstore"); got != "istio-agent istio-certs 755\nroot root 700" {
		t.Error(got)
	}
	h.invite(t)
	h.run(t, "systemctl enable --now "+unit)
	h.is(t, "ActiveState=active", "SubState=running", "NRestarts=0")
	first := h.supplied(t, "")
	if first.Identity != "spiffe://"+trustDomain+"/ns/vm/sa/web" || first.RenewedBy != "join token" {
		t.Errorf("%+v", first)
	}
	if text := h.property(t, "StatusText"); !strings.HasPrefix(text, first.Identity+", 1") || !strings.Contains(text, " left, ") || !strings.Contains(text, "renewal at "+first.NextTry.UTC().Format("2006-01-02T15:")) {
		t.Error(text)
	}
	if life := h.verified(t); life != 19*time.Hour {
		t.Errorf("the certificate lives for %s", life)
	}
	if got := h.run(t, "cd /etc/certs; stat --dereference --format '%n %U %G %a' *.pem"); got !=
		"cert-chain.pem istio-agent istio-certs 644\nkey.pem istio-agent istio-certs 640\nroot-cert.pem istio-agent istio-certs 644" {
		t.Error(got)
	}
	if got := h.run(t, "cd /var/lib; stat --format '%U %a' istio-auth-node-agent; ls istio-auth-node-agent; journalctl --boot | grep -c citadel-join || :"); got != "istio-agent 700\njoined.json\nlock\n0" {
		t.Errorf("the state, or the journal has the token: %s", got)
	}
	h.run(t, "rm /etc/credstore/citadel-join-token")

	h.flags(t, "--workload-cert-ttl=24h")
	h.run(t, "systemctl restart "+unit)
	if second := h.supplied(t, first.Serial); second.RenewedBy != "certificate" || h.verified(t) != 24*time.Hour {
		t.Errorf("%+v", second)
	}

	h.flags(t, "--workload-cert-ttl=20s", "RestartSec=100ms")
	h.run(t, "systemctl restart "+unit)
	renewed := h.supplied(t, h.supplied(t, first.Serial).Serial)
	h.run(t, "systemctl kill --signal=KILL "+unit)
	h.becomes(t, "ActiveState=active", "NRestarts=1")
	h.supplied(t, renewed.Serial)

	h.run(t, "systemctl stop "+unit)
	h.is(t, "ActiveState=inactive", "Result=success")
	h.run(t, "systemctl start "+unit)
	for _, off := range []func() error{h.PowerOff, func() error { h.CutPower(); return nil }} {
		before := h.supplied(t, "")
		if err := off(); err != nil {
			t.Fatal(err)
		}
		if err := h.boot(); err != nil {
			t.Fatal(err)
		}
		h.becomes(t, "ActiveState=active")
		if after := h.supplied(t, before.Serial); after.Identity != first.Identity || !strings.Contains(after.RenewedBy, "certificate") || h.verified(t) != 20*time.Second {
			t.Errorf("%+v", after)
		}
	}
	h.run(t, "dpkg --remove istio-auth-node-agent; test ! -e /usr/local/bin/node_agent; test -s /etc/certs/key.pem")
}

// TestNothingToJoinWith: it is not active without a certificate, says why, and
// joins when somebody brings a token.
func TestNothingToJoinWith(t *testing.T) {
	t.Parallel()
	h := start(t, "uninvited")
	h.installFromSource(t)
	h.flags(t, "", "TimeoutStartSec=5s", "RestartSec=1s")
	h.run(t, "systemctl start --no-block "+unit)
	within(t, patience, func() error {
		_, err := h.sh("systemctl show --property=StatusText " + unit + " | grep 'nothing to join with.*give a join token'")
		return err
	})
	h.is(t, "ActiveState=activating", "NRestarts=0")
	h.run(t, "test ! -e /etc/certs/key.pem")
	within(t, patience, func() error {
		_, err := h.sh("journalctl --unit " + unit + " | grep \"Failed with result 'timeout'\"")
		return err
	})
	h.invite(t)
	h.becomes(t, "ActiveState=active")
	h.verified(t)
	h.run(t, "make -C /run/test/source uninstall; test ! -e /usr/local/bin/node_agent; test -s /etc/certs/key.pem")
	h.is(t, "LoadState=not-found", "ActiveState=inactive")
}

// TestFilesOfTheAncestors: key, chain and root were copied to the host, and the
// CA's address is in the unit's settings.
func TestFilesOfTheAncestors(t *testing.T) {
	t.Parallel()
	h := start(t, "ancestral")
	h.installPackage(t)
	h.invite(t)
	h.run(t, "systemctl start "+unit)
	first := h.supplied(t, "")
	h.run(t, `
		systemctl stop `+unit+`
		mkdir /run/files
		cp --dereference /etc/certs/*.pem /run/files/
		rm -r /etc/certs/*.pem /etc/certs/.citadel /etc/credstore/citadel-join-token /var/lib/istio-auth-node-agent
		cp /run/files/*.pem /etc/certs/
		chown istio-agent:istio-certs /etc/certs/*.pem
		echo NODE_AGENT_CA_ADDRESS=10.77.0.1:8060 >>/etc/default/istio-auth-node-agent
		systemctl start `+unit+`
		node_agent renew`)
	if s := h.supplied(t, first.Serial); s.RenewedBy != "certificate" || s.Identity != first.Identity {
		t.Errorf("%+v", s)
	}
	h.verified(t)
}

// TestWatchdog ends an agent whose loop is stuck, here for a watchdog of 6 seconds
// in a question to a CA that does not answer, and another goes on. A program that
// takes its time to read the files is waited for by nobody.
func TestWatchdog(t *testing.T) {
	t.Parallel()
	h := start(t, "stuck")
	h.installFromSource(t)
	h.invite(t)
	h.flags(t, "--workload-cert-ttl=2m --reload-command 'sleep 25'", "WatchdogSec=6s", "RestartSec=3s")
	h.run(t, "systemctl start "+unit)
	first := h.supplied(t, "")
	h.run(t, "node_agent renew")
	before := h.supplied(t, first.Serial)
	h.is(t, "NRestarts=0")
	h.run(t, `
		nft 'add table inet stuck; add chain inet stuck out { type filter hook output priority 0; }; add rule inet stuck out tcp dport 8060 drop'
		node_agent renew`)
	h.becomes(t, "Result=watchdog")
	h.run(t, "nft delete table inet stuck")
	h.becomes(t, "ActiveState=active", "Result=success", "NRestarts=1")
	h.run(t, "node_agent renew")
	if after := h.supplied(t, before.Serial); after.RenewedBy != "certificate" {
		t.Errorf("%+v", after)
	}
	h.verified(t)
}

// TestLinkDown for longer than the certificate lives: nobody has to do anything.
func TestLinkDown(t *testing.T) {
	t.Parallel()
	h := start(t, "remote")
	h.installFromSource(t)
	h.invite(t)
	h.flags(t, "--workload-cert-ttl=20s")
	h.run(t, "systemctl start "+unit)
	h.supplied(t, h.supplied(t, "").Serial)
	process := h.property(t, "MainPID")
	if err := authority.IP("link set " + h.port() + " down"); err != nil {
		t.Fatal(err)
	}
	within(t, patience, func() error {
		_, err := h.sh("systemctl show --property=StatusText " + unit + " | grep 'expired [0-9a-z.]* ago.* failed [0-9]* times, next try at'")
		return err
	})
	h.is(t, "ActiveState=active", "MainPID="+process)
	if err := authority.IP("link set " + h.port() + " up"); err != nil {
		t.Fatal(err)
	}
	if s := h.supplied(t, ""); s.RenewedBy != "expired certificate" || s.Failures != 0 {
		t.Errorf("%+v", s)
	}
	h.is(t, "MainPID="+process)
	h.verified(t)
}
