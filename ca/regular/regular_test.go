package regular

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestRead(t *testing.T) {
	folder := t.TempDir()
	at := func(name string) string { return filepath.Join(folder, name) }
	for name, size := range map[string]int{"empty": 0, "longest": Longest, "larger": Longest + 1} {
		if err := os.WriteFile(at(name), make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(syscall.Mkfifo(at("pipe"), 0o600), os.Symlink("longest", at("link"))); err != nil {
		t.Fatal(err)
	}
	for path, size := range map[string]int{at("empty"): 0, at("longest"): Longest, at("link"): Longest} {
		if text, err := Read(path); len(text) != size || err != nil {
			t.Errorf("%s: %d bytes, %v", path, len(text), err)
		}
	}
	for path, says := range map[string]string{
		at("larger"): "is larger than 1048576 bytes",
		at("pipe"):   "is no regular file",
		"/dev/zero":  "is no regular file",
		folder:       "is a directory",
		at("none"):   "no such file",
	} {
		_, err := Read(path)
		named, is := errors.AsType[*fs.PathError](err)
		if !is || named.Path != path || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
