package certdir

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// hook is called before each operation on the file system; where it returns an
// error, that is the operation's.
type hook func(operation, path string) error

// dir is an open directory. All operations are relative to it, lead nowhere
// outside it, and come back with errors that say what to do. Its zero value
// is not open: nothing is in there.
type dir struct {
	root   *os.Root
	path   string
	before hook
}

// maxBytes is what a file may hold: as much as package trust parses.
const maxBytes = 1 << 20

func openDir(path string, before hook) (dir, error) {
	d := dir{path: path, before: before}
	err := d.try("open", "", func() (err error) {
		d.root, err = os.OpenRoot(path)
		return err
	})
	return d, err
}

func (d dir) isOpen() bool { return d.root != nil }

func (d dir) close() {
	if d.isOpen() {
		d.root.Close()
	}
}

// name is the path of what is called base in d, or of d itself, for people.
func (d dir) name(base string) string { return filepath.Join(d.path, base) }

// try does one operation, and explains its error.
func (d dir) try(operation, base string, do func() error) error {
	path := d.name(base)
	if d.before != nil {
		if err := d.before(operation, path); err != nil {
			return explain(operation, path, err)
		}
	}
	if err := do(); err != nil {
		return explain(operation, path, err)
	}
	return nil
}

// open opens a directory within d. A link is not followed.
func (d dir) open(base string) (dir, error) {
	info, err := d.lstat(base)
	if err != nil {
		return dir{}, err
	}
	if !info.IsDir() {
		return dir{}, fmt.Errorf("%s is not a directory, and nothing of ours: move it away", d.name(base))
	}
	sub := dir{path: d.name(base), before: d.before}
	err = d.try("open", base, func() (err error) {
		sub.root, err = d.root.OpenRoot(base)
		return err
	})
	return sub, err
}

func (d dir) mkdir(base string) error {
	return d.try("make", base, func() error { return d.root.Mkdir(base, 0o700) })
}

// own gives d itself a mode and an owner, where it does not have them.
func (d dir) own(mode fs.FileMode, uid, gid int) error {
	var self *os.File
	err := d.try("open", "", func() (err error) {
		self, err = d.root.Open(".")
		return err
	})
	if err != nil {
		return err
	}
	defer self.Close()
	return d.ownFile("", self, mode, uid, gid)
}

// ownFile goes by the open file alone: a link put in its place changes nothing.
func (d dir) ownFile(base string, f *os.File, mode fs.FileMode, uid, gid int) error {
	info, err := f.Stat()
	if err != nil {
		return explain("look at", d.name(base), err)
	}
	has := info.Sys().(*syscall.Stat_t)
	if uid >= 0 && has.Uid != uint32(uid) || gid >= 0 && has.Gid != uint32(gid) {
		if err := d.try("change the owner of", base, func() error { return f.Chown(uid, gid) }); err != nil {
			return err
		}
	}
	if info.Mode().Perm() == mode {
		return nil
	}
	return d.try("change the mode of", base, func() error { return f.Chmod(mode) })
}

// create makes a file that was not there, with all that belongs to it, on the
// disk. Only the directory's entry is not: see sync.
func (d dir) create(base string, text []byte, mode fs.FileMode, uid, gid int) error {
	var f *os.File
	err := d.try("make", base, func() (err error) {
		f, err = d.root.OpenFile(base, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = d.ownFile(base, f, mode, uid, gid)
	if err == nil {
		err = d.try("write", base, func() error {
			_, err := f.Write(text)
			return err
		})
	}
	if err == nil {
		err = d.try("sync", base, f.Sync)
	}
	if closeErr := d.try("close", base, f.Close); err == nil {
		err = closeErr
	}
	return err
}

// sync puts d's entries on the disk.
func (d dir) sync() error {
	return d.try("sync", "", func() error {
		self, err := d.root.Open(".")
		if err != nil {
			return err
		}
		defer self.Close()
		return self.Sync()
	})
}

// openLock opens the lock file, and makes it.
func (d dir) openLock() (*os.File, error) {
	var f *os.File
	err := d.try("open", lockName, func() (err error) {
		f, err = d.root.OpenFile(lockName, os.O_RDWR|os.O_CREATE, 0o600)
		return err
	})
	return f, err
}

// temporary is the name under which a link is made before it is moved to base.
func temporary(base string) string { return "." + base + ".citadel-new" }

// link puts a link in the place of base, be there something or not, in one
// step.
func (d dir) link(target, base string) error {
	temp := temporary(base)
	if err := d.removeTemporary(base); err != nil {
		return err
	}
	if err := d.try("link", temp, func() error { return d.root.Symlink(target, temp) }); err != nil {
		return err
	}
	return d.try("replace", base, func() error { return d.root.Rename(temp, base) })
}

// removeTemporary removes the link that a crash in link left behind.
func (d dir) removeTemporary(base string) error {
	temp := temporary(base)
	info, err := d.lstat(temp)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSymlink {
		return fmt.Errorf("%s is not a link, and nothing of ours: move it away", d.name(temp))
	}
	return d.remove(temp)
}

// remove removes a file, link or empty directory. That it is gone is no error.
func (d dir) remove(base string) error {
	err := d.try("remove", base, func() error { return d.root.Remove(base) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d dir) lstat(base string) (info fs.FileInfo, err error) {
	err = d.try("look at", base, func() (err error) {
		info, err = d.root.Lstat(base)
		return err
	})
	return info, err
}

func (d dir) readlink(base string) (target string, err error) {
	err = d.try("read", base, func() (err error) {
		target, err = d.root.Readlink(base)
		return err
	})
	return target, err
}

func (d dir) list() (entries []fs.DirEntry, err error) {
	err = d.try("list", "", func() error {
		self, err := d.root.Open(".")
		if err != nil {
			return err
		}
		defer self.Close()
		entries, err = self.ReadDir(-1)
		return err
	})
	return entries, err
}

// read returns the content of a regular file in d, never nil; it follows no
// link, and waits for no pipe.
func (d dir) read(base string) ([]byte, error) {
	if !d.isOpen() {
		return nil, fs.ErrNotExist
	}
	before, err := d.lstat(base)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: %w", d.name(base), errChanged)
	}
	text := []byte{}
	err = d.try("read", base, func() error {
		f, err := d.root.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if info, err := f.Stat(); err != nil {
			return err
		} else if !info.Mode().IsRegular() || !os.SameFile(before, info) {
			return errChanged
		} else if d.isForeign(info) {
			return errors.New("is another user's file under a second name: put a copy there")
		}
		text, err = io.ReadAll(io.LimitReader(f, maxBytes+1))
		return err
	})
	if err == nil && len(text) > maxBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes, and so neither a key nor certificates: move it away, or name another file", d.name(base), maxBytes)
	}
	return text, err
}

// isForeign finds the file of somebody else, to which the owner of d has given
// a name in d: we may be able to read it where he is not.
func (d dir) isForeign(file fs.FileInfo) bool {
	self, err := d.root.Stat(".")
	if err != nil {
		return true
	}
	f := file.Sys().(*syscall.Stat_t)
	return f.Nlink > 1 && f.Uid != self.Sys().(*syscall.Stat_t).Uid
}
