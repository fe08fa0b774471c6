package enforce

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"citadel/ca/regular"
)

// TestRuleFiles: whoever writes rules names files of this host: what is no file, has
// no end or is never written to is refused, and nothing waits for it.
func TestRuleFiles(t *testing.T) {
	r := newRig(t)
	app := r.app(echo)
	e := r.enforcer("sleep")
	folder := t.TempDir()
	pipe, large, good := filepath.Join(folder, "pipe"), filepath.Join(folder, "large"), filepath.Join(folder, "good")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, text := range map[string][]byte{large: make([]byte, regular.Longest+1), good: r.root.PEM()} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for path, says := range map[string]string{
		"/dev/zero": "is no regular file", pipe: "is no regular file", folder: "is a directory", large: "is larger than 1048576 bytes", filepath.Join(folder, "none"): "no such file",
	} {
		for field, rest := range map[string]string{
			"caCertificates":    "mode: SIMPLE",
			"clientCertificate": "mode: MUTUAL, privateKey: " + good,
			"privateKey":        "mode: MUTUAL, clientCertificate: " + good,
		} {
			r.say(app, mode("DISABLE")+"\n"+rule("httpbin", fmt.Sprintf("{%s, %s: %s}", rest, field, path)))
			if heard := r.ask(r.out(e, httpbin), "hello"); heard != "reset" {
				t.Errorf("%s: %s: heard %q", field, path, heard)
			}
			v := r.event()
			if v.Reason != BadConfiguration || v.Upstream != (netip.AddrPort{}) {
				t.Errorf("%s: %s: %+v", field, path, v)
			}
			if text := fmt.Sprint(v.Err); !strings.Contains(text, path) || !strings.Contains(text, field) || !strings.Contains(text, says) {
				t.Errorf("%s: %s: the text is %q, which lacks %q", field, path, text, says)
			}
		}
	}
}
