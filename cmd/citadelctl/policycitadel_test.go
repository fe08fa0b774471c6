package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"citadel/ca/catest"
)

// TestCitadelServerName: the name of the flag is the one that the citadel's
// certificate is checked for.
func TestCitadelServerName(t *testing.T) {
	dir := t.TempDir()
	f := citadelFlags{citadel: "a:1", serverName: "ca.example.com", rootCert: filepath.Join(dir, "roots"), token: filepath.Join(dir, "token")}
	for path, text := range map[string][]byte{
		f.rootCert: catest.Root(t, time.Now(), catest.Spec{Name: "root"}).PEM(),
		f.token:    []byte("word\n"),
	} {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if cfg, err := f.config(); err != nil || cfg.ServerName != "ca.example.com" || cfg.Token != "word" {
		t.Errorf("%+v, %v", cfg, err)
	}
}
