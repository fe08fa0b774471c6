package hosts

import (
	"fmt"
	"testing"
	"time"
)

// patience bounds every wait for something that takes a moment, on a machine
// that does much else.
const patience = 90 * time.Second

// poll asks again and again until ask is content, and returns its last
// complaint when that takes too long.
func poll(limit time.Duration, ask func() error) error {
	deadline := time.After(limit)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-deadline:
			return fmt.Errorf("not in %s: %w", limit, err)
		case <-tick.C:
		}
	}
}

// within is poll for a test, which fails.
func within(t *testing.T, limit time.Duration, ask func() error) {
	t.Helper()
	if err := poll(limit, ask); err != nil {
		t.Fatal(err)
	}
}
