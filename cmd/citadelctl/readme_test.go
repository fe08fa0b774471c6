package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// TestReadme: the case that README.md shows passes as it stands there.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, found := strings.Cut(string(text), "```yaml\nformatVersion: 1\n")
	cases, _, ends := strings.Cut(after, "```")
	if !found || !ends {
		t.Fatal("README.md shows no case")
	}
	file := t.TempDir() + "/cases.yaml"
	if err := os.WriteFile(file, []byte("formatVersion: 1\n"+cases), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, messages bytes.Buffer
	if code := run(t.Context(), []string{"policy", "test", file}, &out, &messages); code != 0 || out.String() != "1 passed, 0 failed\n" {
		t.Errorf("exit code %d: %s%s", code, out.String(), messages.String())
	}
}
