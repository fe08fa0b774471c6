package certdir

import (
	"io/fs"
	"os"
	"testing"
)

// TestNarrowKey: a key that was copied there, as for the ancestor (compatibility
// 5.1), is at once as hard to read as those that the agent makes.
func TestNarrowKey(t *testing.T) {
	for _, c := range []struct{ copied, keyMode, had, has fs.FileMode }{
		{0o644, 0o600, 0o644, 0o600}, {0o644, 0o640, 0o644, 0o640}, {0o440, 0o600, 0o440, 0o400},
		{0o600, 0o640, 0, 0o600}, {0o640, 0o640, 0, 0o640},
	} {
		d := dirIn(t.TempDir())
		d.KeyMode = c.keyMode
		want := textsOf(t, newSet(t, "a"))
		put(t, d, want)
		if err := os.Chmod(d.Key, c.copied); err != nil {
			t.Fatal(err)
		}
		s := open(t, d)
		had, err := s.NarrowKey()
		info, statErr := os.Stat(d.Key)
		if err != nil || statErr != nil || had != c.had || info.Mode().Perm() != c.has {
			t.Errorf("%+v: had %#o, has %#o, %v, %v", c, had, info.Mode().Perm(), err, statErr)
		}
		if got, err := d.Load(); err != nil || !equal(textsOf(t, got), want) {
			t.Errorf("%+v: the files hold something else: %v", c, err)
		}
	}
}

// TestNarrowKeyOfOthers: nothing changes that is not a key in a file.
func TestNarrowKeyOfOthers(t *testing.T) {
	d := dirIn(t.TempDir())
	if err := os.WriteFile(d.Key, []byte("my poems\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open(t, d)
	_, err := s.NarrowKey()
	wantError(t, err, nil, "is a file of another kind")
	if info, err := os.Stat(d.Key); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("%v, %v", info, err)
	}
}
