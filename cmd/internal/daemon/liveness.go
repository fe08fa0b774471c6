package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"
)

// Liveness is a file whose age says whether the process is alive, for probes
// that run a command instead of asking the monitoring port.
type Liveness struct {
	Path string
	// Interval is how often the file is touched.
	Interval time.Duration
	// Alive says why it must not be touched: nil if all is well.
	Alive func() error
	// Tell hears why it was not touched. Required.
	Tell func(error)
}

// Run touches the file until ctx ends, for as long as the process is alive.
func (l Liveness) Run(ctx context.Context) {
	ticker := time.NewTicker(l.Interval)
	defer ticker.Stop()
	for {
		if err := l.touch(time.Now()); err != nil {
			l.Tell(err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (l Liveness) touch(now time.Time) error {
	if err := l.Alive(); err != nil {
		return err
	}
	err := os.Chtimes(l.Path, now, now)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := os.OpenFile(l.Path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(file.Close(), os.Chtimes(l.Path, now, now))
}

// skew is how far ahead the clock may be that the file was touched by.
const skew = time.Minute

// CheckLiveness tells, from outside the process, why it is not alive: nil when
// its file was touched less than limit before now. A file of the future would
// look young for long after the process has died.
func CheckLiveness(path string, limit time.Duration, now time.Time) error {
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("liveness file: %w", err)
	}
	age := now.Sub(info.ModTime())
	if age < -skew {
		return fmt.Errorf("liveness file %s was touched %s from now, in the future: a clock is wrong", path, -age.Round(time.Millisecond))
	}
	if age >= limit {
		return fmt.Errorf("liveness file %s was touched %s ago, which must be less than %s", path, age.Round(time.Millisecond), limit)
	}
	return nil
}
