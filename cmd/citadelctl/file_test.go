package main

import (
	"context"
	"errors"
	"io"
	"testing"
)

// TestReadInputEnds: an interrupt is heard while standard input is silent.
func TestReadInputEnds(t *testing.T) {
	silent, writer := io.Pipe()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := readInput(ctx, silent, "standard input"); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v", err)
	}
	if err := writer.Close(); err != nil { // lets the reader go
		t.Error(err)
	}
}
