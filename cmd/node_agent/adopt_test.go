package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// mounted shows what a host holds as the kubelet mounts a Secret: by links.
func (h *host) mounted() string {
	folder := h.t.TempDir()
	for _, name := range setNames {
		if err := os.Symlink(h.path(name), filepath.Join(folder, name)); err != nil {
			h.t.Fatal(err)
		}
	}
	return folder
}

// TestAdoptFrom begins with what is mounted, and renews by that in files of its
// own, once.
func TestAdoptFrom(t *testing.T) {
	ca, secret, h := newCitadel(t, 0), newHost(t), newHost(t)
	secret.holds(ca)
	was := secret.shows()
	flags := append(at(ca), "--adopt-from="+secret.mounted())
	log, s := h.runs("CSR is approved successfully", flags...)
	if s.Identity != web.String() || s.RenewedBy == "" || strings.Count(log, "key, certificate and roots are adopted") != 1 {
		t.Errorf("%+v\n%s", s, log)
	}
	if got := h.shows(); got[0] == was[0] || got[1] == was[1] || got[2] != was[2] {
		t.Errorf("the files of the host are %q", got)
	}
	if secret.shows() != was {
		t.Error("what is mounted has changed")
	}
	log, _ = h.runs("the CA serves no policy", flags...)
	if strings.Contains(log, "adopted") {
		t.Error("what was renewed is given up for what is mounted: ", log)
	}
}

// TestAdoptFromNothingGood says what is wrong, and leaves the files alone.
func TestAdoptFromNothingGood(t *testing.T) {
	ca, secret, h := newCitadel(t, 0), newHost(t), newHost(t)
	before := h.shows()
	log, s := h.runs("no new certificate", append(at(ca), "--adopt-from="+secret.dir)...)
	if !strings.Contains(log, "--adopt-from: open "+secret.path("key.pem")) {
		t.Errorf("%+v\n%s", s, log)
	}
	secret.holds(ca)
	secret.write("cert-chain.pem", []byte("no certificate"))
	log, s = h.runs("no new certificate", append(at(ca), "--adopt-from="+secret.dir)...)
	if !strings.Contains(log, "--adopt-from: key and certificate in "+secret.dir) {
		t.Errorf("%+v\n%s", s, log)
	}
	if h.shows() != before {
		t.Errorf("the files are %q", h.shows())
	}
}
