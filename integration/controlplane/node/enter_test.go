package node

import (
	"os"
	"strings"
	"testing"
)

// TestEnterNoNode: what was to happen in a node must not happen on the machine.
func TestEnterNoNode(t *testing.T) {
	if _, err := Enter(os.Getpid(), []string{"-test.run=^$"}); err == nil || !strings.Contains(err.Error(), "is of no node: its pid namespace is the machine's") {
		t.Errorf("entered: %v", err)
	}
}
