package certdir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// Install replaces key, chain and roots as one, and removes all generations
// but this one and the one before it.
//
// After an error, the files show what they showed before; only where the error
// is that of the very last step, which puts the swap on the disk, they may
// already show the new set, and a power failure may bring back the old one.
// Install may be called again after any error.
//
// It fails where the set is not whole, where something stands in its place
// that is not its own, and where the file system refuses; the error then says
// what, where, and what to do. Errors hold nothing of the key. A generation
// that cannot be removed is no error: the next Install tries again.
func (s *Sink) Install(set Set) error {
	texts, err := set.marshal()
	if err != nil {
		return err
	}
	t, err := s.begin()
	if err != nil {
		return err
	}
	defer t.close()
	t.sweep()
	defer t.sweep()
	if err := t.adopt(); err != nil {
		return err
	}
	number, err := t.add(texts)
	if err != nil {
		return err
	}
	return t.swap(number)
}

// begin opens the directories, under the lock, with a store in the mode and
// with the owner that the settings ask for.
func (s *Sink) begin() (*tree, error) {
	t, err := s.dir.open()
	if err != nil {
		return nil, err
	}
	if err = t.makeStore(); err == nil {
		err = s.hold(t.store)
	}
	if err == nil {
		err = t.store.own(t.storeMode(), t.UID, t.GID)
	}
	if err == nil {
		err = t.openGeneration()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// hold takes the lock, or sees that the one held is still the store's: who
// removed the store from under us may have started another agent since.
//
// The lock is a file that only its owner opens. A lock on the directory itself
// could be taken by everyone who may read the certificates.
func (s *Sink) hold(store dir) error {
	lock, err := store.openLock()
	if err != nil {
		return err
	}
	if s.lock != nil && sameFile(s.lock, lock) {
		return lock.Close()
	}
	if err := store.try("lock", lockName, func() error { return flock(lock, syscall.LOCK_EX|syscall.LOCK_NB) }); err != nil {
		lock.Close()
		return err
	}
	if s.lock != nil {
		s.lock.Close()
	}
	s.lock = lock
	return nil
}

func flock(f *os.File, how int) error {
	for {
		if err := syscall.Flock(int(f.Fd()), how); err != syscall.EINTR {
			return err
		}
	}
}

func sameFile(a, b *os.File) bool {
	x, xerr := a.Stat()
	y, yerr := b.Stat()
	return xerr == nil && yerr == nil && os.SameFile(x, y)
}

// makeStore makes the store where there is none.
func (t *tree) makeStore() (err error) {
	if t.store.isOpen() {
		return nil
	}
	if err := t.parents[0].mkdir(storeName); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if t.store, err = t.parents[0].open(storeName); err != nil {
		return err
	}
	return t.parents[0].sync()
}

// adopt turns the three stable names into links, where they are not yet,
// without changing what they show: it makes a generation of just that (be it
// nothing), has "current" name it, and only then puts links in the place of
// files.
func (t *tree) adopt() error {
	shown, err := t.shown()
	if err != nil {
		return err
	}
	if shown.linked == [3]bool{true, true, true} {
		return nil
	}
	for i, p := range t.pieces {
		if shown.linked[i] {
			continue
		}
		if err := p.checkOurs(shown.texts[i]); err != nil {
			return err
		}
	}
	number, err := t.add(shown.texts)
	if err != nil {
		return err
	}
	// A store that a crash cut off from its first sync has to be on the disk
	// before links lead there.
	if err := t.parents[0].sync(); err != nil {
		return err
	}
	if err := t.swap(number); err != nil {
		return err
	}
	for i, p := range t.pieces {
		if shown.linked[i] {
			continue
		}
		if err := t.parents[i].link(p.target, p.base()); err != nil {
			return err
		}
		if err := t.parents[i].sync(); err != nil {
			return err
		}
	}
	return nil
}

// add makes a generation of the texts, all of it on the disk, and returns its
// number. Nothing leads there yet.
func (t *tree) add(texts texts) (string, error) {
	number, err := t.makeGeneration()
	if err != nil {
		return "", err
	}
	generation, err := t.store.open(number)
	if err != nil {
		return "", err
	}
	defer generation.close()
	for i, p := range t.pieces {
		if texts[i] == nil {
			continue
		}
		if err := generation.create(p.name, texts[i], p.mode, t.UID, t.GID); err != nil {
			return "", err
		}
	}
	if err := generation.own(t.storeMode(), t.UID, t.GID); err != nil {
		return "", err
	}
	if err := generation.sync(); err != nil {
		return "", err
	}
	return number, t.store.sync()
}

// makeGeneration makes the directory of the next generation, and returns its
// number. Numbers at which something stands that is not ours are passed over.
func (t *tree) makeGeneration() (string, error) {
	n, err := t.readCurrent()
	if err != nil {
		return "", err
	}
	for {
		n++
		number := strconv.FormatUint(n, 10)
		if _, ok := generationNumber(number); !ok {
			return "", fmt.Errorf("%s has no number left for another generation: remove %s", t.store.path, t.store.name(currentName))
		}
		if err := t.store.mkdir(number); !errors.Is(err, fs.ErrExist) {
			return number, err
		}
	}
}

// swap has "current" name a generation: the one moment at which all changes.
func (t *tree) swap(number string) error {
	if err := t.store.link(number, currentName); err != nil {
		return err
	}
	return t.store.sync()
}

// sweep removes what crashes and earlier sets left behind. It keeps the
// generation in force and the one before it, which somebody may be reading.
// What fails is left for the next time: the set in force is more important
// than a tidy store.
func (t *tree) sweep() {
	// Until the last swap is surely on the disk, a power failure may lead back
	// to any of the generations.
	if t.store.sync() != nil {
		return
	}
	current, err := t.readCurrent()
	if err != nil {
		return
	}
	all, err := t.generations()
	if err != nil {
		return
	}
	var before uint64
	for _, n := range all {
		if n < current {
			before = max(before, n)
		}
	}
	for _, n := range all {
		if n != current && n != before {
			t.removeGeneration(strconv.FormatUint(n, 10))
		}
	}
	t.store.removeTemporary(currentName)
	for i, p := range t.pieces {
		t.parents[i].removeTemporary(p.base())
	}
}

// removeGeneration removes our files and then the directory, which stays if
// somebody has put his own into it.
func (t *tree) removeGeneration(name string) {
	generation, err := t.store.open(name)
	if err != nil {
		return
	}
	defer generation.close()
	for _, p := range t.pieces {
		if generation.remove(p.name) != nil {
			return
		}
	}
	t.store.remove(name)
}

// generations returns the numbers of all generations, in no order: the
// directories whose names are numbers as we write them.
func (t *tree) generations() ([]uint64, error) {
	entries, err := t.store.list()
	if err != nil {
		return nil, err
	}
	var all []uint64
	for _, e := range entries {
		if n, ok := generationNumber(e.Name()); ok && e.IsDir() {
			all = append(all, n)
		}
	}
	return all, nil
}

func generationNumber(name string) (uint64, bool) {
	n, err := strconv.ParseUint(name, 10, 63)
	return n, err == nil && n > 0 && strconv.FormatUint(n, 10) == name
}

// readCurrent returns the number of the generation in force, 0 if there is
// none.
func (t *tree) readCurrent() (uint64, error) {
	target, err := t.store.readlink(currentName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if errors.Is(err, syscall.EINVAL) {
		return 0, fmt.Errorf("%s is not a link, and nothing of ours: move it away", t.store.name(currentName))
	}
	if err != nil {
		return 0, err
	}
	n, ok := generationNumber(target)
	if !ok {
		return 0, fmt.Errorf("%s is a link to %q, which is no generation of ours: remove it", t.store.name(currentName), target)
	}
	return n, nil
}
