package ca_test

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"citadel/ca"
	"citadel/ca/catest"
	"citadel/ca/trust"
)

func checkStages(t *testing.T, log *catest.Log, want ...string) {
	t.Helper()
	var got []string
	for _, r := range log.Records() {
		got = append(got, r.Stage)
	}
	if !slices.Equal(got, want) {
		t.Errorf("audit records are of stages %q, want %q", got, want)
	}
}

func TestSignatureIsAuditedBeforeAndAfter(t *testing.T) { // C-9
	a, log := namesSetup(t)
	leaf := issue(t, a, now, ca.Request{CSR: workloadCSR(t)})
	checkStages(t, log, ca.AuditSigning, ca.AuditSigned)
	for _, got := range log.Records() {
		want := ca.AuditRecord{
			Time: now, Stage: got.Stage,
			Caller: workload.String(), Method: "test", Evidence: "a test says so",
			Identity: workload.String(), DNSNames: workNames,
			Serial: leaf.SerialNumber.Text(16), Issuer: a.Signer().Cert().Subject.String(),
			NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		}
		if g, w := asJSON(t, got), asJSON(t, want); g != w {
			t.Errorf("record is\n%s\nwant\n%s", g, w)
		}
	}
}

func asJSON(t *testing.T, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestFailedSignatureIsAuditedWithItsSerialAndReason(t *testing.T) {
	a, log := namesSetup(t)
	csr := editRequest(t, workloadCSR(t), func(r *rawRequest) { r.Signature.Bytes[20] ^= 1 })
	_, err := a.Issue(now, caller, ca.Request{CSR: csr})
	checkStages(t, log, ca.AuditSigning, ca.AuditFailed)
	before, after := log.Records()[0], log.Records()[1]
	if before.Serial == "" || before.Serial != after.Serial {
		t.Errorf("serial numbers are %q and %q", before.Serial, after.Serial)
	}
	if after.Class != ca.CSRError || after.Error != err.Error() || before.Error != "" {
		t.Errorf("record of the failure is %+v", after)
	}
}

func TestRefusalIsAuditedAlone(t *testing.T) {
	a, log := namesSetup(t)
	_, err := a.Issue(now, caller, ca.Request{CSR: workloadCSR(t), TTL: maxTTL + 1})
	want := asJSON(t, ca.AuditRecord{
		Time: now, Stage: ca.AuditRefused, Caller: workload.String(), Method: "test", Evidence: "a test says so",
		Class: ca.TTLError, Error: err.Error(),
	})
	if r := log.Records(); len(r) != 1 || asJSON(t, r[0]) != want {
		t.Errorf("records are %s, want one: %s", asJSON(t, r), want)
	}
}

// TestAuditRecordsHoldNoKeyMaterial: of the signer, of the workload, of a
// request that is a key.
func TestAuditRecordsHoldNoKeyMaterial(t *testing.T) {
	a, log := namesSetup(t)
	workKey := catest.Key(t, trust.ECDSAP256, "workload")
	secrets := [][]byte{catest.KeyPEM(t, workKey), catest.KeyPEM(t, a.Signer().Key())}
	requests := [][]byte{workloadCSR(t), secrets[0], []byte(strings.ReplaceAll(string(secrets[0]), "\n", " "))}
	for _, r := range requests {
		_, _ = a.Issue(now, caller, ca.Request{CSR: r}) // refused or not: it is the records that count
	}
	text := asJSON(t, log.Records())
	for _, secret := range secrets {
		for _, form := range forms(t, secret) {
			if strings.Contains(text, form) {
				t.Errorf("records hold key material: %s", text)
			}
		}
	}
	if strings.Contains(text, "-----BEGIN") {
		t.Errorf("records hold PEM: %s", text)
	}
	checkStages(t, log, ca.AuditSigning, ca.AuditSigned, ca.AuditRefused, ca.AuditRefused)
}

// forms are how the scalar of an ECDSA key may be written.
func forms(t *testing.T, key []byte) []string {
	t.Helper()
	parsed, err := trust.ParseKey(key)
	if err != nil {
		t.Fatal(err)
	}
	scalar, err := parsed.(interface{ Bytes() ([]byte, error) }).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(key), "\n")
	return []string{hex.EncodeToString(scalar), base64.StdEncoding.EncodeToString(scalar), base64.RawURLEncoding.EncodeToString(scalar), lines[1]}
}

var errDiskFull = errors.New("disk full")

// failingAt fails the n-th record and keeps the others.
func failingAt(n int, log *catest.Log) func(ca.AuditRecord) error {
	return func(r ca.AuditRecord) error {
		if len(log.Records())+1 == n {
			return errDiskFull
		}
		return log.Audit(r)
	}
}

// TestNothingIsIssuedWithoutItsAuditRecords: that nothing is even signed without
// the first one is in internal_test.go.
func TestNothingIsIssuedWithoutItsAuditRecords(t *testing.T) {
	for n, text := range map[int]string{
		1: "the audit record before signing cannot be written: disk full",
		2: "the audit record after signing cannot be written: disk full",
	} {
		log := &catest.Log{}
		a := catest.Authority(t, now, ca.Config{Audit: failingAt(n, log)})
		chain, err := a.Issue(now, caller, ca.Request{CSR: workloadCSR(t)})
		wantClass(t, err, ca.CertGenError, text)
		if chain != nil || !errors.Is(err, errDiskFull) {
			t.Errorf("record %d fails: error %v, %d certificates", n, err, len(chain))
		}
	}
}

func TestRefusalStaysARefusalWithoutItsAuditRecord(t *testing.T) {
	a := catest.Authority(t, now, ca.Config{Audit: failingAt(1, &catest.Log{})})
	_, err := a.Issue(now, ca.Caller{}, ca.Request{CSR: workloadCSR(t)})
	wantClass(t, err, ca.Unauthenticated, "caller is not authenticated")
	if !errors.Is(err, errDiskFull) {
		t.Errorf("error %v does not tell of the audit sink", err)
	}
}

// TestErrorsAreOfClassesWithTheAncestorsNames: metrics and clients know them.
func TestErrorsAreOfClassesWithTheAncestorsNames(t *testing.T) {
	for class, name := range map[ca.Class]string{
		ca.CANotReady: "CA_NOT_READY", ca.CSRError: "CSR_ERROR", ca.TTLError: "TTL_ERROR", ca.CertGenError: "CERT_GEN_ERROR",
	} {
		if string(class) != name {
			t.Errorf("%q, want %q", class, name)
		}
	}
}
