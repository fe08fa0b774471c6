package statedir

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// TestTrustDomainIsKept for the tools beside citadel; a damaged file is none, and
// is written anew.
func TestTrustDomainIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if td, err := d.TrustDomain(); err != nil || !td.IsZero() {
		t.Errorf("before any was kept: %v, %v", td, err)
	}
	for _, name := range []string{"example.org", "example.org", "cluster.local"} {
		td := spiffeid.RequireTrustDomainFromString(name)
		if err := d.KeepTrustDomain(td); err != nil {
			t.Fatal(err)
		}
		beside, err := Beside(path)
		if err != nil {
			t.Fatal(err)
		}
		if kept, err := beside.TrustDomain(); err != nil || kept != td {
			t.Errorf("kept %v, %v", kept, err)
		}
		beside.Close()
	}
	for _, text := range []string{"", "\n", "UPPER\n", "a b", "spiffe://example.org\n", "example.org/ns\n"} {
		if err := os.WriteFile(filepath.Join(path, domainName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if td, err := d.TrustDomain(); err == nil || !strings.Contains(err.Error(), "trust-domain is damaged") {
			t.Errorf("%q: %v, %v", text, td, err)
		}
	}
	td := spiffeid.RequireTrustDomainFromString("example.org")
	if err := d.KeepTrustDomain(td); err != nil {
		t.Fatal(err)
	}
	if kept, err := d.TrustDomain(); err != nil || kept != td {
		t.Errorf("written anew: %v, %v", kept, err)
	}
}
