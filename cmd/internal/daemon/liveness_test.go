package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// TestLiveness: the file is young for as long as the process is alive, and a
// reason why it is not is told.
func TestLiveness(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.liveness")
	synctest.Test(t, func(t *testing.T) {
		const interval, limit = time.Minute, 2 * time.Minute
		sick := errors.New("stuck")
		var stuck atomic.Bool
		var told []error
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			alive := func() error {
				if stuck.Load() {
					return sick
				}
				return nil
			}
			Liveness{Path: path, Interval: interval, Alive: alive, Tell: func(err error) { told = append(told, err) }}.Run(ctx)
		}()
		after := func(d time.Duration) error {
			time.Sleep(d)
			synctest.Wait()
			return CheckLiveness(path, limit, time.Now())
		}
		for range 10 {
			if err := after(37 * time.Second); err != nil {
				t.Error(err)
			}
		}
		stuck.Store(true)
		if err := after(limit); err == nil || !strings.Contains(err.Error(), path+" was touched 2m") || len(told) == 0 || !errors.Is(told[0], sick) {
			t.Errorf("stuck: %v, told %v", err, told)
		}
		stuck.Store(false)
		if err := after(interval); err != nil {
			t.Error(err)
		}
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
		if err := after(time.Second); err == nil || !strings.Contains(err.Error(), "no such file") {
			t.Errorf("removed: %v", err)
		}
		if err := after(interval); err != nil {
			t.Error(err)
		}
		cancel()
		<-ended
	})
}

func TestLivenessFileCannotBeMade(t *testing.T) {
	var told error
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	Liveness{Path: filepath.Join(t.TempDir(), "no", "file"), Interval: time.Hour, Alive: func() error { return nil }, Tell: func(err error) { told = err }}.Run(ctx)
	if !errors.Is(told, os.ErrNotExist) {
		t.Errorf("told %v", told)
	}
}

func TestCheckLiveness(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	now := time.Now().Truncate(time.Second)
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Chtimes(path, now, now)); err != nil {
		t.Fatal(err)
	}
	for age, alive := range map[time.Duration]bool{-time.Hour: false, -time.Minute - 1: false, -time.Minute: true, 0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false} {
		if err := CheckLiveness(path, time.Minute, now.Add(age)); (err == nil) != alive {
			t.Errorf("%s old: %v", age, err)
		}
	}
}
