package hosts

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"citadel/nodeagent"
)

const unit = "istio-auth-node-agent.service"

// installPackage puts the agent on the host as its package does.
func (h *host) installPackage(t *testing.T) {
	t.Helper()
	h.run(t, "dpkg -i /run/test/programs/istio-auth-node-agent_*.deb")
}

// installFromSource does so as make install does.
func (h *host) installFromSource(t *testing.T) {
	t.Helper()
	h.run(t, "make -C /run/test/source install BIN=$(echo /run/test/programs/linux-*)")
}

// invite lets the host join as service account vm/web, as citadelctl tells.
func (h *host) invite(t *testing.T) {
	t.Helper()
	token := authority.run(t, `hint=$(mktemp)
		citadelctl token create --state-dir /var/lib/citadel --trust-domain `+trustDomain+` --namespace vm --service-account web --address 10.77.0.1:8060 2>$hint
		grep -q 'install -D -m 0600 /dev/stdin /etc/credstore/citadel-join-token' $hint && grep -q 'systemctl enable --now `+unit+`' $hint`)
	h.write(t, "/etc/credstore/citadel-join-token", "0600", token+"\n")
}

// flags has the unit run the agent with these, and what else a drop-in says, as
// the comments in the unit tell people to.
func (h *host) flags(t *testing.T, flags string, more ...string) {
	t.Helper()
	lines := append([]string{"[Service]", "ExecStart=", "ExecStart=/usr/local/bin/node_agent --key-mode=0640 " + flags}, more...)
	h.write(t, "/etc/systemd/system/"+unit+".d/test.conf", "0644", strings.Join(lines, "\n")+"\n")
	h.run(t, "systemctl daemon-reload")
}

// property is one of the unit's.
func (h *host) property(t *testing.T, name string) string {
	t.Helper()
	return h.run(t, "systemctl show --property="+name+" --value "+unit)
}

// is insists on properties of the unit, as NAME=VALUE.
func (h *host) is(t *testing.T, properties ...string) {
	t.Helper()
	if err := h.has(properties...); err != nil {
		t.Error(err)
	}
}

// becomes waits for them.
func (h *host) becomes(t *testing.T, properties ...string) {
	t.Helper()
	within(t, patience, func() error { return h.has(properties...) })
}

func (h *host) has(properties ...string) error {
	out, err := h.sh("systemctl show " + unit)
	if err != nil {
		return err
	}
	lines := strings.Split(out, "\n")
	for _, want := range properties {
		name, _, _ := strings.Cut(want, "=")
		if n := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, name+"=") }); n < 0 || lines[n] != want {
			return fmt.Errorf("%s: not %s, but %q", h.Name, want, lines[max(n, 0)])
		}
	}
	return nil
}

// status is what the agent tells of itself.
func (h *host) status() (nodeagent.Status, error) {
	var s nodeagent.Status
	out, err := h.sh("node_agent status -o json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// supplied waits until the host has a valid certificate other than that of a
// serial number, and returns its status.
func (h *host) supplied(t *testing.T, other string) nodeagent.Status {
	t.Helper()
	var s nodeagent.Status
	within(t, patience, func() (err error) {
		if s, err = h.status(); err == nil && s.Serial == other {
			err = fmt.Errorf("it still has certificate %s: %s", other, s.LastError)
		}
		return err
	})
	return s
}

// verified insists that OpenSSL takes the files, and returns the certificate's
// life.
func (h *host) verified(t *testing.T) time.Duration {
	t.Helper()
	text := h.run(t, `
		openssl verify -x509_strict -CAfile /etc/certs/root-cert.pem /etc/certs/cert-chain.pem >/dev/null
		test "$(openssl x509 -noout -pubkey -in /etc/certs/cert-chain.pem)" = "$(openssl pkey -pubout -in /etc/certs/key.pem)"
		openssl x509 -noout -startdate -enddate -in /etc/certs/cert-chain.pem`)
	var ends [2]time.Time
	for n, line := range strings.Split(text, "\n") {
		_, date, _ := strings.Cut(line, "=")
		var err error
		if ends[n], err = time.Parse("Jan _2 15:04:05 2006 MST", date); err != nil {
			t.Fatal(err)
		}
	}
	const backdate = 2 * time.Minute
	return ends[1].Sub(ends[0]) - backdate
}
