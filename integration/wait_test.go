package integration

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// within asks again and again until ask is content, and fails the test with
// its last complaint when that takes too long, or when a Citadel of the test
// has ended by itself.
func within(t testing.TB, limit time.Duration, ask func() error) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := ask()
		if err == nil {
			return
		}
		if death := deathIn(t); death != nil {
			t.Fatalf("%v: %v", death, err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("not in %s: %v", limit, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// stays asks again and again for the whole time, and fails the test at the
// first complaint. It is for what must not happen.
func stays(t testing.TB, period time.Duration, ask func() error) {
	t.Helper()
	for end := time.Now().Add(period); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err := ask(); err != nil {
			t.Fatal(err)
		}
	}
}

// deaths are how Citadels ended by themselves, by the name of their test.
var deaths sync.Map

// deathIn is how one of the test, or of the test that it is a part of, ended.
func deathIn(t testing.TB) (death error) {
	deaths.Range(func(name, err any) bool {
		if t.Name() == name || strings.HasPrefix(t.Name(), name.(string)+"/") {
			death = err.(error)
		}
		return death == nil
	})
	return death
}

// must unwraps a result: must(f())(t).
func must[T any](value T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// inParallel does count things, 16 at once.
func inParallel(t testing.TB, count int, do func(i int) error) {
	t.Helper()
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(count, 16) {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < count; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	if t.Failed() {
		t.FailNow()
	}
}
