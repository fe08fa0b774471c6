package main

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/caclient"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

const askAgain = ": is that the CA's address (--ca-address), and does it run and let this host through? It is asked again"
const notUsed = ": it is not used; look into the CA's log, and compare --ca-address"
const freshToken = ": bring a fresh join token (citadelctl token create)"

// trouble is what can be wrong, with the sentence that must be told of it in
// log and status. The certificate files must stay as they are, byte for byte.
type trouble struct {
	// bare: the host has nothing yet; else it holds a good certificate that is due.
	bare bool
	make func(h *host, c *citadel) (flags []string)
	want []string
}

// at asks c with what the host holds.
func at(c *citadel) []string { return []string{"--ca-address=" + c.address} }

// joins is a host with a file of a join token.
func joins(h *host, j caclient.Join) []string {
	return []string{"--join-token-file=" + h.write("token", []byte(j.Encode()+"\n"))}
}

var troubles = map[string]trouble{
	"nobody at the address": {false, func(*host, *citadel) []string { return []string{"--ca-address=127.0.0.1:1"} },
		[]string{"certificate: 127.0.0.1:1 does not answer: dial tcp 127.0.0.1:1: connect: connection refused", askAgain}},
	"no such name": {false, func(*host, *citadel) []string { return []string{"--ca-address=nowhere.invalid:8060"} },
		[]string{"nowhere.invalid:8060 does not answer: ", askAgain}},
	"something else at the address": {false, func(h *host, _ *citadel) []string { return []string{"--ca-address=" + notTLS(h.t)} },
		[]string{" answers without TLS, and so is no CA: authentication handshake failed: tls: first record does not look like a TLS handshake" + askAgain}},
	"another CA at the address": {false, func(h *host, _ *citadel) []string { return at(newCitadel(h.t, 0)) },
		[]string{"the server is not the CA that is trusted here: x509: certificate signed by unknown authority", ": compare --ca-address; where the CA's root has changed while this host was away, bring a fresh join token (citadelctl token create)"}},
	"wrong name of the server": {false, func(_ *host, c *citadel) []string { return append(at(c), "--ca-server-name=istiod") },
		[]string{"certificate is valid for istio-citadel, not istiod: give one of its names by --ca-server-name, or add this one to citadel's by --grpc-host-identities; --ca-address may be"}},
	"wrong fingerprint": {true, func(h *host, c *citadel) []string {
		j := c.join(h.t, time.Now())
		j.Fingerprints = []string{strings.Repeat("0a", 32)}
		return joins(h, j)
	}, []string{"join token: the server is not the CA that is trusted here: the server's root is not the one of the fingerprint 0a0a", ": compare --ca-address"}},
	"used token": {true, func(h *host, c *citadel) []string {
		j := c.join(h.t, time.Now())
		newHost(h.t).runs("CSR is approved successfully", joins(newHost(h.t), j)...)
		return joins(h, j)
	}, []string{"join token: ", "has been used (1 of 1): make another by citadelctl token create"}},
	"expired token": {true, func(h *host, c *citadel) []string { return joins(h, c.join(h.t, time.Now().Add(-2*time.Hour))) },
		[]string{"join token: ", " expired at ", "make another by citadelctl token create"}},
	"unknown token": {true, func(h *host, c *citadel) []string {
		j := c.join(h.t, time.Now())
		j.Bearer = strings.Replace(j.Bearer, ".", ".0000000000", 1)[:len(j.Bearer)]
		return joins(h, j)
	}, []string{"join token: ", freshToken}},
	"our clock is behind by a year": {false, func(h *host, _ *citadel) []string { return ofAnotherYear(h, 365*24*time.Hour) },
		[]string{"certificate: the server is not the CA that is trusted here: x509: certificate has expired or is not yet valid", "this host's clock says " + time.Now().UTC().Format("2006-01-02"), ", compare it"}},
	"our clock is ahead by eleven years": {false, func(h *host, _ *citadel) []string { return ofAnotherYear(h, -11*365*24*time.Hour) },
		[]string{"x509: certificate has expired", "this host's clock says " + time.Now().UTC().Format("2006-01-02"), ", compare it"}},
	"too long a life": {false, func(_ *host, c *citadel) []string { return append(at(c), "--workload-cert-ttl=2160h") },
		[]string{"certificate: ", "greater than the max allowed TTL", ": lower --workload-cert-ttl"}},
	"another identity": {false, func(_ *host, c *citadel) []string {
		return append(at(c), "--spiffe-id=spiffe://cluster.local/ns/vm/sa/other")
	}, []string{"certificate: ", "spiffe://cluster.local/ns/vm/sa/other", ": compare --spiffe-id"}},

	"someone else's certificate": {false, lies(func(c *citadel, csr *x509.CertificateRequest) []string {
		return answer(c, issue(c, csr.PublicKey, func(l *x509.Certificate) { l.URIs = []*url.URL{other.URL()} }))
	}), []string{"the CA answered with the certificate of spiffe://cluster.local/ns/vm/sa/other, and this host is spiffe://cluster.local/ns/vm/sa/web: compare --spiffe-id; to change who it is, move its old files away first"}},
	"a certificate of another key": {false, lies(func(c *citadel, _ *x509.CertificateRequest) []string { return answer(c, issue(c, c.root.Key.Public())) }),
		[]string{"the CA answered with a certificate for another key" + notUsed}},
	"a certificate of nobody": {false, lies(func(c *citadel, csr *x509.CertificateRequest) []string {
		return answer(c, issue(c, csr.PublicKey, func(l *x509.Certificate) { l.URIs = nil }))
	}), []string{"the CA answered with a certificate that names no workload", notUsed}},
	"an expired certificate": {false, lies(func(c *citadel, csr *x509.CertificateRequest) []string {
		return answer(c, issue(c, csr.PublicKey, func(l *x509.Certificate) { l.NotAfter = time.Now().Add(-time.Minute) }))
	}), []string{"the CA's certificate expired at ", "this host's clock says "}},
	"a certificate of another root": {false, lies(func(c *citadel, csr *x509.CertificateRequest) []string {
		leaf := issue(c, csr.PublicKey)
		return []string{leaf, string(catest.Citadel14Root(c.t, time.Now(), web.TrustDomain()).PEM())}
	}), []string{"the CA's certificate does not verify to the roots that came with it", notUsed}},
	"an answer that is none": {false, lies(func(*citadel, *x509.CertificateRequest) []string { return []string{"x", "y"} }),
		[]string{"the server's answer does not parse: element 1 ", ": compare --ca-address and the CA's version"}},
	"an empty answer": {false, lies(func(*citadel, *x509.CertificateRequest) []string { return nil }),
		[]string{"the server's answer does not parse: it has 0 elements", ": compare --ca-address and the CA's version"}},

	"nothing at all": {true, func(_ *host, c *citadel) []string { return at(c) },
		[]string{nothingToJoinWith, "give a join token (citadelctl token create), a token file, or key, chain and root in the certificate files"}},
	"a token file that is not there": {true, func(h *host, _ *citadel) []string { return []string{"--join-token-file=" + h.path("typo")} },
		[]string{nothingToJoinWith + " (read the token: open ", "typo: no such file or directory)", "give a join token"}},
	"an empty token file": {true, func(h *host, _ *citadel) []string { return []string{"--join-token-file=" + h.write("token", nil)} },
		[]string{"the token file ", " is empty: write the token to it"}},
	"half a token": {true, func(h *host, c *citadel) []string {
		text := c.join(h.t, time.Now()).Encode()
		return []string{"--join-token-file=" + h.write("token", []byte(text[:len(text)-40]))}
	}, []string{" is a damaged join token: copy the whole of it, in one line"}},
	"a token that is something else": {true, func(h *host, _ *citadel) []string {
		return []string{"--token-file=" + h.write("token", []byte("s3cr3t\r\nmore\x00"))}
	}, []string{"the token file ", " holds no token: one is a single line without spaces"}},
	"a token file without end": {true, func(*host, *citadel) []string { return []string{"--token-file=/dev/zero"} },
		[]string{"read the token: read /dev/zero: is no regular file"}},
	"a huge token file": {true, func(h *host, _ *citadel) []string {
		return []string{"--token-file=" + h.write("token", make([]byte, 2<<20))}
	}, []string{"read the token: ", "is larger than 1048576 bytes"}},
	"a pipe for a token": {true, func(h *host, _ *citadel) []string {
		if err := syscall.Mkfifo(h.path("pipe"), 0o600); err != nil {
			h.t.Fatal(err)
		}
		return []string{"--token-file=" + h.path("pipe")}
	}, []string{"read the token: ", "is no regular file"}},
	"a token, and no root": {true, func(h *host, c *citadel) []string {
		return append(at(c), "--token-file="+h.write("token", []byte("x")))
	}, []string{"token: no root of the CA is known: give --ca-root or --ca-fingerprint, or use a join token"}},
	"roots that are not there": {true, func(h *host, c *citadel) []string {
		return append(at(c), "--ca-root="+h.path("typo"), "--token-file="+h.write("token", []byte("x")))
	}, []string{"--ca-root: open ", "typo: no such file or directory", "no root of the CA is known"}},
	"roots that are none": {true, func(h *host, c *citadel) []string {
		return append(at(c), "--ca-root="+h.write("ca.pem", []byte("hello")), "--token-file="+h.write("token", []byte("x")))
	}, []string{"--ca-root: ", "ca.pem holds no PEM certificate", "no root of the CA is known"}},

	"half a key": {false, func(h *host, c *citadel) []string {
		h.write("key.pem", []byte(h.shows()[0][:60]))
		return at(c)
	}, []string{"the certificate files are not usable, and left as they are until there are new ones: ", "key.pem is damaged: a PEM block has no end", ": copy all three files again, or join anew"}},
	"an empty chain": {false, func(h *host, c *citadel) []string { h.write("cert-chain.pem", nil); return at(c) },
		[]string{"the certificate files are not usable", "cert-chain.pem holds no PEM certificate"}},
	"a chain that is not there": {false, func(h *host, c *citadel) []string {
		if err := os.Remove(h.path("cert-chain.pem")); err != nil {
			h.t.Fatal(err)
		}
		return at(c)
	}, []string{"the set is not complete: ", "cert-chain.pem is missing: copy all three files again, or join anew"}},
	"a key of another set": {false, func(h *host, c *citadel) []string {
		key, err := trust.MarshalKey(catest.Key(h.t, trust.ECDSAP256, "another"))
		if err != nil {
			h.t.Fatal(err)
		}
		h.write("key.pem", key)
		return at(c)
	}, []string{"key.pem does not belong to the first certificate of ", "they come from different sets: copy all three files again, or join anew"}},
	"a foreign file": {false, func(h *host, c *citadel) []string {
		h.write("key.pem", []byte("my poems\n"))
		return append(at(c), joins(h, c.join(h.t, time.Now()))...)
	}, []string{"key.pem is a file of another kind, not a PEM private key: move it away, or name another file"}},
	"a folder in the place of a file": {false, func(h *host, c *citadel) []string {
		if err := os.Remove(h.path("root-cert.pem")); err != nil {
			h.t.Fatal(err)
		}
		if err := os.Mkdir(h.path("root-cert.pem"), 0o700); err != nil {
			h.t.Fatal(err)
		}
		return append(at(c), joins(h, c.join(h.t, time.Now()))...)
	}, []string{"root-cert.pem is neither a file nor a link of ours: move it away, or name another file"}},
	"another's link": {false, func(h *host, c *citadel) []string {
		if err := os.Rename(h.path("key.pem"), h.path("elsewhere.pem")); err != nil {
			h.t.Fatal(err)
		}
		if err := os.Symlink("elsewhere.pem", h.path("key.pem")); err != nil {
			h.t.Fatal(err)
		}
		return at(c)
	}, []string{"key.pem is a link to elsewhere.pem, which is not ours and is not followed: remove it, or name another file"}},
	"a damaged joining key": {true, func(h *host, c *citadel) []string {
		state{h.path("state")}.make(h.t, keyName, "-----BEGIN")
		return joins(h, c.join(h.t, time.Now()))
	}, []string{"join token: the key to join with, ", keyName, ": remove it, and bring a fresh join token"}},
	"it is not known where it joined": {false, func(h *host, _ *citadel) []string {
		state{h.path("state")}.make(h.t, joinedName, `{"addr`)
		return nil
	}, []string{joinedName + ", which says where the host joined, is damaged: give --ca-address, or remove it; certificate: istio-citadel:8060 "}},
}

var other = spiffeid.RequireFromString("spiffe://cluster.local/ns/vm/sa/other")

// TestTrouble: whatever is wrong, there is one sentence for a person, in log
// and status alike, and what was good stays.
func TestTrouble(t *testing.T) {
	for name, c := range troubles {
		t.Run(name, func(t *testing.T) {
			h, ca := newHost(t), newCitadel(t, 0)
			if !c.bare {
				h.holds(ca)
			}
			flags := c.make(h, ca)
			before := h.shows()
			log, s := h.runs(`msg="no new certificate"`, flags...)
			for _, want := range c.want {
				if !strings.Contains(s.LastError, want) {
					t.Errorf("%q is missing in: %s", want, s.LastError)
				}
			}
			if s.LastError == "" || !strings.Contains(strings.ReplaceAll(log, `\"`, `"`), s.LastError) {
				t.Errorf("status %q, and log %s", s.LastError, log)
			}
			if h.shows() != before {
				t.Error("the files have changed")
			}
			for _, secret := range []string{"PRIVATE KEY", "citadel-join", "s3cr3t"} {
				if strings.Contains(log+s.LastError, secret) {
					t.Errorf("%q is told: %s", secret, log)
				}
			}
		})
	}
}

// TestRootsThatAreNotThere stop no host that holds a good certificate, and are
// told (also those that are none).
func TestRootsThatAreNotThere(t *testing.T) {
	for _, wrong := range []string{"/nowhere/ca.pem", "/dev/null", t.TempDir()} {
		h, ca := newHost(t), newCitadel(t, 0)
		h.holds(ca)
		log, s := h.runs("CSR is approved successfully", append(at(ca), "--ca-root="+wrong)...)
		if !s.Valid(time.Now()) || s.LastError != "" || s.RenewedBy != "certificate" ||
			!strings.Contains(log, `level=WARN msg="not all roots of the CA are read; those beside the certificate count" err="--ca-root: `) {
			t.Errorf("%s: %+v, %s", wrong, s, log)
		}
	}
}

// notTLS is a server of another protocol.
func notTLS(t *testing.T) string {
	t.Helper()
	listener := listen(t)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func(conn net.Conn) {
				defer conn.Close()
				fmt.Fprint(conn, "220 mail.example ESMTP\r\n")
			}(conn)
		}
	}()
	return listener.Addr().String()
}

// ofAnotherYear is a host of a CA whose clock is later than ours.
func ofAnotherYear(h *host, later time.Duration) []string {
	c := newCitadel(h.t, later)
	h.holds(c)
	return at(c)
}

// lies has the host ask a liar.
func lies(answer func(*citadel, *x509.CertificateRequest) []string) func(*host, *citadel) []string {
	return func(h *host, c *citadel) []string {
		return []string{"--ca-address=" + c.lies(h.t, func(csr *x509.CertificateRequest) []string { return answer(c, csr) })}
	}
}
