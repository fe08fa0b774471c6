package statedir

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

// folder is an open directory. Its operations lead nowhere outside it, and their
// errors say what to do.
type folder struct {
	root     *os.Root
	path     string
	before   hook
	uid, gid int // whose new files are to be
}

// maxBytes is what a file may hold.
const maxBytes = 1 << 20

func openFolder(path string, before hook) (folder, error) {
	f := folder{path: path, before: before}
	err := f.try("open", "", func() (err error) {
		f.root, err = os.OpenRoot(path)
		return err
	})
	return f, err
}

// subfolder opens a directory within f, and makes it.
func (f folder) subfolder(base string) (folder, error) {
	made := f.mkdir(base)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return folder{}, made
	}
	sub := f
	sub.path = f.name(base)
	err := f.try("open", base, func() (err error) {
		sub.root, err = f.root.OpenRoot(base)
		return err
	})
	if err == nil && made == nil {
		if err = sub.ownSelf(); err == nil {
			err = f.sync()
		}
	}
	if err != nil {
		sub.close()
		return folder{}, err
	}
	return sub, nil
}

func (f folder) close() {
	if f.root != nil {
		f.root.Close()
	}
}

// name is the path of what is called base in f, or of f itself, for people.
func (f folder) name(base string) string { return filepath.Join(f.path, base) }

// try does one operation, and explains its error.
func (f folder) try(operation, base string, do func() error) error {
	if f.before != nil {
		if err := f.before(operation, f.name(base)); err != nil {
			return explain(operation, f.name(base), f.path, err)
		}
	}
	if err := do(); err != nil {
		return explain(operation, f.name(base), f.path, err)
	}
	return nil
}

func (f folder) lstat(base string) (info fs.FileInfo, err error) {
	err = f.try("look at", base, func() (err error) {
		info, err = f.root.Lstat(base)
		return err
	})
	return info, err
}

func (f folder) mkdir(base string) error {
	return f.try("make", base, func() error { return f.root.Mkdir(base, 0o700) })
}

// givesAway tells whether new files have to be given to the directory's owner:
// a tool that root runs must not leave some that citadel cannot read.
func (f folder) givesAway() bool { return os.Geteuid() == 0 && f.uid != 0 }

// own is of a file that was just made. What was there before is left to whom it
// belongs: it could have been put there to be given away.
func (f folder) own(base string, file *os.File) error {
	if !f.givesAway() {
		return nil
	}
	return f.try("change the owner of", base, func() error { return file.Chown(f.uid, f.gid) })
}

func (f folder) ownSelf() error {
	self, err := f.root.Open(".")
	if err != nil {
		return explain("open", f.path, f.path, err)
	}
	defer self.Close()
	return f.own("", self)
}

// openLock opens a lock file, and makes it.
func (f folder) openLock(base string) (*os.File, error) {
	var file *os.File
	open := func(flags int) func() error {
		return func() (err error) {
			file, err = f.root.OpenFile(base, os.O_RDWR|syscall.O_NONBLOCK|flags, 0o600)
			return err
		}
	}
	err := f.try("make", base, open(os.O_CREATE|os.O_EXCL))
	if errors.Is(err, fs.ErrExist) {
		return file, f.try("open", base, open(0))
	}
	if err != nil {
		return nil, err
	}
	if err := f.own(base, file); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// isStill tells whether an open file still has its name.
func (f folder) isStill(base string, file *os.File) bool {
	named, err := f.root.Stat(base)
	if err != nil {
		return false
	}
	open, err := file.Stat()
	return err == nil && os.SameFile(named, open)
}

// errForeign says that something is no file of ours.
var errForeign = errors.New("is no regular file: move it away")

// read returns what a file holds, and its mode. It waits for no pipe.
func (f folder) read(base string) (text []byte, mode fs.FileMode, err error) {
	err = f.try("read", base, func() error {
		file, err := f.root.OpenFile(base, os.O_RDONLY|syscall.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		defer file.Close()
		info, err := file.Stat()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return errForeign
		}
		mode = info.Mode().Perm()
		text, err = io.ReadAll(io.LimitReader(file, maxBytes+1))
		return err
	})
	if err == nil && len(text) > maxBytes {
		return nil, 0, fmt.Errorf("%s is larger than %d bytes: that is not what belongs there", f.name(base), maxBytes)
	}
	return text, mode, err
}

// there tells whether something has a name.
func (f folder) there(base string) (bool, error) {
	_, err := f.lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// temporary is the name under which a file is written before it gets its own.
func temporary(base string) string { return "." + base + ".new" }

// prepare puts a text on the disk under the temporary name, in the place of what
// a crash may have left there. After an error nothing is.
func (f folder) prepare(base string, text []byte) error {
	temp := temporary(base)
	if err := f.remove(temp); err != nil {
		return err
	}
	var file *os.File
	err := f.try("make", temp, func() (err error) {
		file, err = f.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	err = f.own(temp, file)
	if err == nil {
		err = f.try("write", temp, func() error {
			_, err := file.Write(text)
			return err
		})
	}
	if err == nil {
		err = f.try("sync", temp, file.Sync)
	}
	if closeErr := f.try("close", temp, file.Close); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = f.remove(temp) // or the next one to write does
	}
	return err
}

// replace gives a file a text in one step: who reads it sees the old or the new.
// After an error it holds the old one, unless that is the error of the very last
// step; then a power failure may bring the old one back.
func (f folder) replace(base string, text []byte) error {
	if err := f.prepare(base, text); err != nil {
		return err
	}
	if err := f.try("replace", base, func() error { return f.root.Rename(temporary(base), base) }); err != nil {
		_ = f.remove(temporary(base))
		return err
	}
	return f.sync()
}

// publish gives what was prepared its name, which nothing may have yet. The
// temporary name stays.
func (f folder) publish(base string) error {
	if err := f.try("make", base, func() error { return f.root.Link(temporary(base), base) }); err != nil {
		return err
	}
	return f.sync()
}

// remove removes a file. That there is none is no error.
func (f folder) remove(base string) error {
	err := f.try("remove", base, func() error { return f.root.Remove(base) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// sync puts f's entries on the disk.
func (f folder) sync() error {
	return f.try("sync", "", func() error {
		self, err := f.root.Open(".")
		if err != nil {
			return err
		}
		defer self.Close()
		return self.Sync()
	})
}

func (f folder) list() (entries []fs.DirEntry, err error) {
	err = f.try("list", "", func() error {
		self, err := f.root.Open(".")
		if err != nil {
			return err
		}
		defer self.Close()
		entries, err = self.ReadDir(-1)
		return err
	})
	return entries, err
}
