package certdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// TestReadersBesideThousandInstalls: while set after set goes in, beginning
// with files that a person put there, Load sees only whole sets, and so does
// who opens the directory "current" once. Neither ever goes back to an older.
func TestReadersBesideThousandInstalls(t *testing.T) {
	const installs = 1000
	d := dirIn(inMemory(t))
	known := map[string]int{} // number of a set by its key
	var sets []Set
	var all []texts
	for i := range 8 {
		set := newSet(t, fmt.Sprint(i))
		sets, all = append(sets, set), append(all, textsOf(t, set))
		known[string(all[i][0])] = i
	}
	put(t, d, all[0])
	whole := func(got texts) error {
		if i, ok := known[string(got[0])]; !ok || !equal(got, all[i]) {
			return fmt.Errorf("a mixed set: key %d (known: %v)", i, ok)
		}
		return nil
	}
	var done atomic.Bool
	var readers sync.WaitGroup
	read := func(name string, once func() error) {
		readers.Go(func() {
			n := 0
			for last := false; !last; n++ {
				last = done.Load()
				if err := once(); err != nil {
					t.Errorf("%s, time %d: %v", name, n, err)
					return
				}
			}
			t.Logf("%s: %d times", name, n)
		})
	}
	for range 2 {
		read("Load", func() error {
			set, err := d.Load()
			if err != nil {
				return err
			}
			got, err := set.marshal()
			return errors.Join(err, whole(got))
		})
	}
	read("current, opened once", func() error {
		got, err := readCurrentOnce(d)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // not there yet, or two sets older than the one in force
		}
		return errors.Join(err, whole(got))
	})
	s := open(t, d)
	for i := range installs {
		if err := s.Install(sets[i%len(sets)]); err != nil {
			t.Error(err)
			break
		}
	}
	done.Store(true)
	readers.Wait()
	shows(t, d, sets[(installs-1)%len(sets)])
	tidy(t, d)
}

func readCurrentOnce(d Dir) (texts, error) {
	root, err := os.OpenRoot(filepath.Join(filepath.Dir(d.Key), ".citadel", "current"))
	if err != nil {
		return texts{}, err
	}
	defer root.Close()
	var t texts
	for i, name := range []string{"key.pem", "cert-chain.pem", "root-cert.pem"} {
		if t[i], err = root.ReadFile(name); err != nil {
			return texts{}, err
		}
	}
	return t, nil
}

// TestLoadBesideMigration: files that become links while they are being read
// are the same set before and after.
func TestLoadBesideMigration(t *testing.T) {
	set := newSet(t, "a")
	was := textsOf(t, set)
	for range 50 {
		d := dirIn(inMemory(t))
		put(t, d, was)
		s := open(t, d)
		var installed sync.WaitGroup
		var err error
		installed.Go(func() { err = s.Install(set) })
		for range 20 {
			got, err := d.Load()
			if err != nil || !equal(textsOf(t, got), was) {
				t.Errorf("Load: %v", err)
			}
		}
		installed.Wait()
		if err != nil {
			t.Fatal(err)
		}
		shows(t, d, set)
	}
}
