package main

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPipeIsGivenUp: who waits for a pipe that nobody writes to can still stop.
func TestPipeIsGivenUp(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan int)
	var out, messages bytes.Buffer
	go func() { ended <- run(ctx, []string{"policy", "validate", "-f", pipe}, &out, &messages) }()
	select {
	case code := <-ended:
		if code != exitWrong || !strings.Contains(messages.String(), "context deadline exceeded") {
			t.Errorf("exit code %d: %s", code, messages.String())
		}
	case <-time.After(time.Minute):
		t.Error("it still waits")
	}
}
