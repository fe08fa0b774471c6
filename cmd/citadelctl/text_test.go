package main

import (
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"citadel/ca/authn"
	"citadel/ca/catest"
	"citadel/ca/kube"
	"citadel/cmd/citadelctl/health"
	"citadel/cmd/citadelctl/inspect"
	"citadel/cmd/citadelctl/survey"
	"citadel/secretcontroller"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func TestSecretTable(t *testing.T) {
	id := &survey.Certificate{SPIFFEID: "spiffe://cluster.local/ns/web/sa/a"}
	problem := func(reason, message string) []survey.Problem {
		return []survey.Problem{{Reason: reason, Message: message}}
	}
	var out strings.Builder
	err := writeSecrets(&out, noon, []survey.Item{
		{Namespace: "web", Name: "istio.a", Certificate: id, ExpiresAt: noon.Add(19 * time.Hour), NextRotation: noon.Add(9*time.Hour + 12*time.Minute), Right: true},
		{Namespace: "web", Name: "istio.due", Certificate: id, ExpiresAt: noon.Add(time.Hour), NextRotation: noon.Add(-3 * time.Minute), Problems: problem("rotation", "in its grace period")},
		{Namespace: "web", Name: "istio.late", Certificate: id, ExpiresAt: noon.Add(-52 * time.Hour), Problems: problem("expired", "expired\x1b[31m")},
		{Namespace: "web", Name: "istio.empty", Problems: problem("chain", "cert-chain.pem holds\nno PEM certificate")},
		{Namespace: "web", Name: "istio.gone", Certificate: &survey.Certificate{}, ExpiresAt: noon.Add(time.Minute),
			Problems: append(problem(survey.Orphan, "service account gone does not exist"), problem("key", "key.pem holds no PEM private key")...)},
	})
	want := `NAMESPACE   NAME          SPIFFE ID                            EXPIRES IN         NEXT ROTATION   VERIFIED
web         istio.a       spiffe://cluster.local/ns/web/sa/a   19h                in 9h12m        yes
web         istio.due     spiffe://cluster.local/ns/web/sa/a   1h                 due 3m ago      in its grace period
web         istio.late    spiffe://cluster.local/ns/web/sa/a   expired 2d4h ago   soon            expired�[31m
web         istio.empty   -                                    -                  soon            cert-chain.pem holds�no PEM certificate
web         istio.gone    -                                    60s                never           service account gone does not exist; key.pem holds no PEM private key
`
	if err != nil || out.String() != want {
		t.Errorf("error %v, table:\n%s\nwant:\n%s", err, out.String(), want)
	}
	if secretcontroller.Due != "rotation" {
		t.Errorf("a Secret that is due has reason %q", secretcontroller.Due)
	}
}

func TestInspectionText(t *testing.T) {
	zero := 0
	var out strings.Builder
	err := writeInspection(&out, noon, inspect.Report{
		Source: "chain.pem",
		Certificates: []inspect.Certificate{
			{Number: 1, From: "chain.pem", Role: inspect.Workload, URIs: []string{"https://a.example", "https://b.example"}, DNSNames: []string{"a", "b"},
				IPAddresses: []string{"10.0.0.1"}, EmailAddresses: []string{"x@y"}, Issuer: "CN=issuer\n", Serial: "1f", KeyType: "RSA 1024", Signature: "SHA1-RSA",
				NotBefore: noon.Add(-2 * time.Minute), NotAfter: noon.Add(-time.Second), KeyUsages: []string{"digitalSignature", "keyEncipherment"}, SHA256: "00"},
			{Number: 2, From: "chain.pem", Role: inspect.Issuer, Subject: "CN=issuer", Issuer: "CN=root", NotBefore: noon, NotAfter: noon.Add(5*time.Hour + 3*time.Minute),
				CA: true, MaxPathLength: &zero, KeyUsages: []string{"keyCertSign"}, KeyUsageCritical: true, ExtKeyUsages: []string{"serverAuth"}, SubjectKeyID: "aa", AuthorityKeyID: "bb"},
		},
		Key:          &inspect.Key{From: "chain.pem", KeyType: "RSA 1024"},
		Verification: &inspect.Verification{Roots: "root.pem"},
		Problems:     []inspect.Finding{{Code: "x", Message: "of all"}, {Code: "y", Certificate: 2, Message: "of one\x00"}},
		Remarks:      []inspect.Finding{{Code: "z", Certificate: 1, Message: "by the way"}},
	})
	want := `Certificate 1 of 2, workload, from chain.pem
  SPIFFE ID:         none
  URIs:              https://a.example, https://b.example
  DNS names:         a, b
  IP addresses:      10.0.0.1
  E-mail:            x@y
  Subject:           (empty)
  Issuer:            CN=issuer�
  Serial:            1f
  Key:               RSA 1024
  Signature:         SHA1-RSA
  Not before:        2026-06-01T11:58:00Z (2m ago)
  Not after:         2026-06-01T11:59:59Z (expired 1s ago)
  CA:                no
  Key usage:         digitalSignature, keyEncipherment
  Extended usage:    none
  Subject key ID:    none
  Authority key ID:  none
  SHA-256:           00

Certificate 2 of 2, signing certificate, from chain.pem
  SPIFFE ID:         none
  Subject:           CN=issuer
  Issuer:            CN=root
  Serial:            
  Key:               
  Signature:         
  Not before:        2026-06-01T12:00:00Z (in 0s)
  Not after:         2026-06-01T17:03:00Z (in 5h3m)
  CA:                yes, with at most 0 below it
  Key usage:         keyCertSign (critical)
  Extended usage:    serverAuth
  Subject key ID:    aa
  Authority key ID:  bb
  SHA-256:           

Private key:  RSA 1024, is NOT the key of the certificate (from chain.pem)
Verified:     NO, not by the roots of root.pem

Remarks:
  - certificate 1: by the way
Wrong: 2 problems with chain.pem:
  - of all
  - certificate 2: of one�
`
	if err != nil || out.String() != want {
		t.Errorf("error %v, text:\n%s\nwant:\n%s", err, out.String(), want)
	}
}

func TestChecksText(t *testing.T) {
	var out strings.Builder
	checks := []health.Check{
		{Section: "a", Name: "one", Outcome: health.Passed, Message: "well", Remedy: "none is shown"},
		{Section: "a", Name: "two", Outcome: health.Failed, Message: "sick\x1b[2J", Remedy: "rest"},
		{Section: "b", Name: "three", Outcome: health.Warned, Message: "odd", Remedy: "look"},
		{Section: "b", Name: "four", Outcome: health.Unknown, Message: "no right"},
	}
	err := writeChecks(&out, checks, summarize(checks))
	want := `a
  ok    one: well
  FAIL  two: sick�[2J
        remedy: rest
b
  warn  three: odd
        remedy: look
  ?     four: no right

1 passed, 1 failed, 1 warning, 1 unknown
`
	if err != nil || out.String() != want {
		t.Errorf("error %v, text:\n%s\nwant:\n%s", err, out.String(), want)
	}
}

func TestStatusText(t *testing.T) {
	var out strings.Builder
	err := writeStatus(&out, noon, health.Report{
		Authority: health.Authority{Source: "secret/istio-system/cacerts", Subject: "CN=issuer", KeyType: "RSA 2048", NotAfter: noon.Add(90 * 24 * time.Hour)},
		Roots: health.Roots{From: "ConfigMap istio-ca-root-cert", Namespaces: 3, Published: 2,
			Certificates: []health.Root{{Subject: "CN=root", KeyType: "RSA 4096", NotAfter: noon.Add(-time.Hour)}}},
		Replicas: health.Replicas{Deployed: true, Wanted: 2, Ready: 1, Pods: []health.Pod{{Name: "a", Ready: true}, {Name: "b", State: "CrashLoopBackOff", Restarts: 7}}},
		Leader:   health.Leader{Holder: "a_1", RenewedAt: noon.Add(-3 * time.Second)},
		Secrets: health.Secrets{Namespaces: 3, Accounts: 10, Right: 5, Pending: 1, Missing: 2, Wrong: 2, PastGrace: 1, Orphans: 1,
			SoonestExpiry: noon.Add(time.Hour), SoonestRenewal: noon.Add(2 * time.Minute)},
		Checks: []health.Check{
			{Name: "x", Outcome: health.Failed, Message: "bad", Remedy: "mend it"},
			{Name: "y", Outcome: health.Unknown, Message: "no right to look"},
			{Name: "z", Outcome: health.Passed, Message: "good"},
		},
	})
	want := `CA:              CN=issuer, RSA 2048, below an operator's root, in secret/istio-system/cacerts
  ends:          2026-08-30T12:00:00Z (in 90d)
Roots:           1 in force, of ConfigMap istio-ca-root-cert
  ends:          2026-06-01T11:00:00Z (expired 1h ago): CN=root, RSA 4096
  published:     in 2 of 3 namespaces
Replicas:        1 of 2 ready
  pod:           a: ready, 0 restarts
  pod:           b: CrashLoopBackOff, 7 restarts
Leader:          a_1, renewed 3s ago
Secrets:         5 right of 10 service accounts in 3 namespaces
  too new:       1
  missing:       2
  wrong:         2
  past grace:    1
  orphaned:      1
  first end:     in 1h
  next renewal:  in 2m

Needs a person:
  - x: bad
    remedy: mend it

Unknown:
  - y: no right to look
`
	if err != nil || out.String() != want {
		t.Errorf("error %v, text:\n%s\nwant:\n%s", err, out.String(), want)
	}
}

func TestTokenTable(t *testing.T) {
	token := func(id string, uses int, expires time.Duration, keys ...string) joinToken {
		return newJoinToken(noon, catest.TrustDomain, authn.JoinToken{ID: id, Namespace: "vm", ServiceAccount: "web", Uses: uses, Keys: keys,
			Created: noon.Add(-90 * time.Minute), Expires: noon.Add(expires)})
	}
	nobodys := newJoinToken(noon, spiffeid.TrustDomain{}, authn.JoinToken{ID: "c\x1b[2J", Namespace: "vm", ServiceAccount: "db", Uses: 1, Keys: []string{"a", "b"}, Created: noon, Expires: noon.Add(time.Hour)})
	items := []joinToken{token("a", 3, 19*time.Hour, "k"), token("b", 1, time.Hour, "k"), token("x", 1, -time.Second), nobodys}
	var out strings.Builder
	err := writeTokens(&out, noon, items)
	want := `ID      IDENTITY                              USES LEFT   EXPIRES          CREATED
a       spiffe://cluster.local/ns/vm/sa/web   2 of 3      in 19h           1h30m ago
b       spiffe://cluster.local/ns/vm/sa/web   0 of 1      in 1h            1h30m ago
x       spiffe://cluster.local/ns/vm/sa/web   1 of 1      expired 1s ago   1h30m ago
c�[2J   vm/db                                 0 of 1      in 1h            in 0s
`
	if err != nil || out.String() != want {
		t.Errorf("error %v, table:\n%s\nwant:\n%s", err, out.String(), want)
	}
	for n, state := range []tokenState{tokenUsable, tokenUsed, tokenExpired, tokenUsed} {
		if items[n].State != state {
			t.Errorf("token %q is %s", items[n].ID, items[n].State)
		}
	}
}

func TestBanTable(t *testing.T) {
	var out strings.Builder
	items := banItems(kube.BanList{"spiffe://cluster.local/ns/vm/sa/web": {Reason: "stolen", Since: noon.Add(-50 * time.Hour)}, "5F:0A": {}, "garb\x1bage": {Reason: "x", Since: noon}})
	err := writeBans(&out, noon, items)
	want := `WHOM                                  BANNED     REASON
5F:0A                                 -          -
garb�age                              in 0s      x
spiffe://cluster.local/ns/vm/sa/web   2d2h ago   stolen
`
	if err != nil || out.String() != want {
		t.Errorf("error %v, table:\n%s\nwant:\n%s", err, out.String(), want)
	}
	if items[0].Kind != banOfSerial || items[1].Kind != banUnreadable || items[2].Kind != banOfIdentity {
		t.Errorf("kinds: %+v", items)
	}
}
