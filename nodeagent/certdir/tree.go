package certdir

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
)

// tree is the directories of a Dir, opened: what is done in them is done in
// these, whatever their names are made to mean meanwhile.
type tree struct {
	Dir
	pieces     [3]piece
	parents    [3]dir // of the stable names
	store      dir    // not open where there is none yet
	current    uint64 // the generation that "current" named at openGeneration, 0 for none
	generation dir    // not open until openGeneration, and where it is not there
}

// open opens the directories that are there, but no generation.
func (d Dir) open() (*tree, error) {
	t := &tree{Dir: d, pieces: d.pieces()}
	for i, p := range t.pieces {
		var err error
		if t.parents[i], err = openDir(filepath.Dir(p.path), t.before); err != nil {
			t.close()
			return nil, err
		}
	}
	store, err := t.parents[0].open(storeName)
	if err == nil {
		t.store = store
	} else if !errors.Is(err, fs.ErrNotExist) {
		t.close()
		return nil, err
	}
	return t, nil
}

// openGeneration opens the generation that "current" names now, and so
// resolves the link once for all that is read.
func (t *tree) openGeneration() (err error) {
	if !t.store.isOpen() {
		return nil
	}
	if t.current, err = t.readCurrent(); err != nil || t.current == 0 {
		return err
	}
	generation, err := t.store.open(strconv.FormatUint(t.current, 10))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	t.generation = generation
	return nil
}

// moved tells whether an Install has changed what t was opened on.
func (t *tree) moved() bool {
	now, err := t.Dir.open()
	if err != nil {
		return false
	}
	defer now.close()
	return now.openGeneration() == nil && now.current != t.current
}

func (t *tree) close() {
	for _, d := range []dir{t.parents[0], t.parents[1], t.parents[2], t.store, t.generation} {
		d.close()
	}
}

// shown is what the three stable names show.
type shown struct {
	texts  texts
	linked [3]bool // already our link
}

func (t *tree) shown() (shown, error) {
	var s shown
	for i, p := range t.pieces {
		var err error
		if s.linked[i], err = t.isLink(i); err != nil {
			return shown{}, err
		}
		from, name := t.parents[i], p.base()
		if s.linked[i] {
			from, name = t.generation, p.name
		}
		if s.texts[i], err = from.read(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return shown{}, err
		}
	}
	return s, nil
}

// isLink tells whether a stable name is our link already. One that is neither
// that nor a file is somebody else's.
func (t *tree) isLink(i int) (bool, error) {
	p, parent := t.pieces[i], t.parents[i]
	info, err := parent.lstat(p.base())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, err
	case info.Mode().IsRegular():
		return false, nil
	case info.Mode().Type() != fs.ModeSymlink:
		return false, fmt.Errorf("%s is neither a file nor a link of ours: move it away, or name another file", p.path)
	}
	target, err := parent.readlink(p.base())
	if err != nil {
		return false, err
	}
	if target != p.target {
		return false, fmt.Errorf("%s is a link to %s, which is not ours and is not followed: remove it, or name another file", p.path, target)
	}
	return true, nil
}

// checkOurs refuses to put a link in the place of a file that cannot be a key
// or certificates: somebody has named the wrong file. What a power failure or
// an interrupted copy leaves of the right one passes.
func (p piece) checkOurs(text []byte) error {
	const begin = "-----BEGIN "
	rest := string(bytes.Trim(text, "\x00 \t\r\n"))
	if strings.HasPrefix(begin, rest) {
		return nil // empty, or broken off within the first words
	}
	_, header, found := strings.Cut(rest, begin)
	kind, _, whole := strings.Cut(header, "-----")
	ours := strings.HasSuffix(kind, p.kind) || p.kind == "PRIVATE KEY" && kind == "EC PARAMETERS"
	if found && (ours || !whole && !strings.Contains(kind, "\n")) {
		return nil
	}
	return fmt.Errorf("%s is a file of another kind, not a PEM %s: move it away, or name another file", p.path, strings.ToLower(p.kind))
}
