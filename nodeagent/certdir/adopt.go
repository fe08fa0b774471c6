package certdir

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// NarrowKey takes from a key that somebody put there the rights that KeyMode
// does not give, and returns the mode that it had; zero when nothing was too
// much, or the key is one of our own generations. It gives nobody a right.
func (s *Sink) NarrowKey() (had fs.FileMode, err error) {
	t, err := s.dir.open()
	if err != nil {
		return 0, err
	}
	defer t.close()
	p, parent := t.pieces[0], t.parents[0]
	if linked, err := t.isLink(0); err != nil || linked {
		return 0, err
	}
	text, err := parent.read(p.base())
	if err == nil {
		err = p.checkOurs(text)
	}
	if err != nil {
		return 0, err
	}
	var file *os.File
	if err := parent.try("open", p.base(), func() (err error) {
		file, err = parent.root.OpenFile(p.base(), os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
		return err
	}); err != nil {
		return 0, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil || !info.Mode().IsRegular() || parent.isForeign(info) {
		return 0, fmt.Errorf("%s: %w", p.path, errChanged)
	}
	had = info.Mode().Perm()
	if had&^p.mode == 0 {
		return 0, nil
	}
	return had, parent.ownFile(p.base(), file, had&p.mode, -1, -1)
}
