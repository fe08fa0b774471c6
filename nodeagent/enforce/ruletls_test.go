package enforce

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"citadel/ca/catest"
)

// TestRuleTLS: SIMPLE and MUTUAL are as the rule configures.
func TestRuleTLS(t *testing.T) {
	r := newRig(t)
	set := r.set(r.root, account("db"))
	folder := t.TempDir()
	write := func(name string, text []byte) string {
		path := filepath.Join(folder, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: set.SVID.Certificates[0].Raw})
	ca, cert, key := write("ca", r.root.PEM()), write("cert", chain), write("key", catest.KeyPEM(t, set.SVID.PrivateKey))
	pair := tls.Certificate{PrivateKey: set.SVID.PrivateKey, Certificate: [][]byte{set.SVID.Certificates[0].Raw}}
	for _, c := range []struct {
		name, rule string
		auth       tls.ClientAuthType
		want       string
		reason     Reason
	}{
		{"SIMPLE by name of the rule", "{mode: SIMPLE, sni: db.example, caCertificates: " + ca + ", subjectAltNames: [\"spiffe://cluster.local/ns/default/sa/db\"]}", 0, "hello", ""},
		{"SIMPLE by the name that was called", "{mode: SIMPLE, caCertificates: " + ca + "}", 0, "reset", WrongIdentity},
		{"SIMPLE by another name", "{mode: SIMPLE, caCertificates: " + ca + ", subjectAltNames: [web.example]}", 0, "reset", WrongIdentity},
		{"SIMPLE, a CA that nobody named", "{mode: SIMPLE}", 0, "reset", UntrustedPeer},
		{"mTLS with what is of no mesh", "{mode: ISTIO_MUTUAL, subjectAltNames: [db.example]}", 0, "reset", WrongIdentity},
		{"SIMPLE, unchecked because the rule says so", "{mode: SIMPLE, insecureSkipVerify: true}", 0, "hello", ""},
		{"MUTUAL", "{mode: MUTUAL, clientCertificate: " + cert + ", privateKey: " + key + ", caCertificates: " + ca + ", subjectAltNames: [\"spiffe://cluster.local/ns/default/sa/db\"]}", tls.RequireAnyClientCert, "hello", ""},
		{"no file of roots", "{mode: SIMPLE, caCertificates: /none}", 0, "reset", BadConfiguration},
		{"a credential of gateways", "{mode: SIMPLE, credentialName: x}", 0, "reset", BadConfiguration},
	} {
		t.Run(c.name, func(t *testing.T) {
			r.t = t
			sni := make(chan string, 1)
			db := r.app(func(conn net.Conn) {
				server := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: c.auth})
				if server.Handshake() == nil {
					sni <- server.ConnectionState().ServerName
					echo(server)
					_ = server.CloseWrite()
				}
			})
			r.say(netip.MustParseAddrPort("127.0.0.1:1"), fmt.Sprintf(`
{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: db, namespace: default}, spec: {hosts: [db.example], ports: [{number: 5432, name: tcp, protocol: TCP, targetPort: %d}], resolution: STATIC, endpoints: [{address: 127.0.0.1}]}}
%s`, db.Port(), rule("db.example", c.rule)))
			heard := r.ask(r.out(r.enforcer("sleep"), Target{Host: "db.example", Port: 5432}), "hello")
			e := r.event()
			if heard != c.want || e.Reason != c.reason || c.reason == "" && e.Way != WayTLS {
				t.Errorf("heard %q, way %q, reason %q (%v)", heard, e.Way, e.Reason, e.Err)
			}
			fix := map[Reason]string{WrongIdentity: "name the server in subjectAltNames of DestinationRule/default/r", UntrustedPeer: "caCertificates of DestinationRule/default/r"}[c.reason]
			if e.Mode == "ISTIO_MUTUAL" {
				fix = "DISABLE in DestinationRule/default/r"
			}
			if !strings.Contains(e.Fix, fix) {
				t.Errorf("what would mend it is %q, want %q", e.Fix, fix)
			}
			if c.want == "hello" {
				if name := <-sni; name != "db.example" {
					t.Errorf("SNI %q", name)
				}
			}
		})
	}
}
