package main

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
)

// TestOneAgentForAFolder: a second one is told of the first; after that ended
// there is room. A folder that cannot be had stops no agent.
func TestOneAgentForAFolder(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	s := state{filepath.Join(t.TempDir(), "a", "state")}
	first, err := s.hold(log)
	if err != nil || first == nil {
		t.Fatal(first, err)
	}
	if _, err := s.hold(log); err == nil || !strings.Contains(err.Error(), "state is in use by another node_agent: stop that one") {
		t.Errorf("a second one: %v", err)
	}
	first.Close()
	again, err := s.hold(log)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	if lock, err := (state{"/proc/nowhere"}).hold(log); lock != nil || err != nil {
		t.Errorf("where there can be no folder: %v, %v", lock, err)
	}
}
