package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"citadel/ca/policy"
	"citadel/nodeagent/enforce"
)

// TestReread: what the file says now counts, all of it or nothing.
func TestReread(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte("log-level: info\nenforce: "+text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	access := filepath.Join(dir, "access.log")
	const before = `{socks: "127.0.0.1:0", limits: {connections: 7}}`
	write(before)
	var document yaml.Node
	if err := yaml.Unmarshal([]byte(before), &document); err != nil {
		t.Fatal(err)
	}
	cfg, problems := parseEnforce(file, document.Content[0])
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var said bytes.Buffer
	e, err := newEnforcing(cfg, "text", func() *policy.Snapshot { return nil }, slog.New(slog.NewTextHandler(&said, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer e.close()
	line := func(path string) bool {
		e.observe(enforce.Event{Direction: enforce.Outbound, Way: enforce.WayMTLS})
		text, _ := os.ReadFile(path)
		return len(text) > 0
	}

	for text, problem := range map[string]string{
		`{socks: "127.0.0.1:0", limits: {connections: 0}}`:                                      "is no number from 1",
		`{socks: "127.0.0.1:1", limits: {connections: 8}}`:                                      "other listeners than are open (line 2: enforce.socks): restart",
		`{socks: "127.0.0.1:0", httpProxy: "127.0.0.1:0", limits: {connections: 8}}`:            "other listeners",
		`{socks: "127.0.0.1:0", limits: {connections: 8}, accessLog: ` + dir + `}`:              "enforce.accessLog",
		"{socks: \"127.0.0.1:0\", limits: {connections: 8}}\nenforce: {socks: \"127.0.0.1:0\"}": "stands there twice",
		"{":                              "did not find",
		"{}\n---\nenforce: {}":           "more than one document",
		"null\nlog-level: debug\nfoo: 7": "must hold some of",
	} {
		write(text)
		if err := e.reread(file); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", text, err)
		}
		if got := e.cfg.Load(); got.limits.Connections != 7 || line(access) {
			t.Errorf("%s: it counts: %+v", text, got)
		}
	}
	if err := os.WriteFile(file, []byte("log-level: info\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := e.reread(file); err == nil || !strings.Contains(err.Error(), "key enforce is gone") {
		t.Error(err)
	}

	write(fmt.Sprintf(`{addresses: [192.0.2.7], limits: {connections: 9}, accessLog: %s, socks: "127.0.0.1:0"}`, access))
	if err := e.reread(file); err != nil {
		t.Fatal(err)
	}
	if got := e.cfg.Load(); got.limits.Connections != 9 || !line(access) || e.addresses()[0] != netip.MustParseAddr("192.0.2.7") {
		t.Errorf("it does not count: %+v\n%s", got, &said)
	}
	if !strings.Contains(said.String(), "keys=log-level\n") {
		t.Errorf("a key that needs a restart is not told:\n%s", &said)
	}
	if err := os.Rename(access, access+".1"); err != nil { // as logrotate does
		t.Fatal(err)
	}
	if line(access) {
		t.Error("a file that was not opened yet has lines")
	}
	if err := e.reread(file); err != nil || !line(access) {
		t.Errorf("the access log was not opened again: %v", err)
	}
}
