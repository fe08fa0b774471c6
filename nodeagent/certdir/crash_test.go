package certdir

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// scenario is what an Install finds.
type scenario struct {
	name    string
	prepare func(testing.TB, Dir)
	dir     func(base string) Dir // dirIn if nil
}

func scenarios(tb testing.TB) []scenario {
	older, old := newSet(tb, "older"), newSet(tb, "old")
	theirs, other := textsOf(tb, old), textsOf(tb, older)
	files := func(t texts) func(testing.TB, Dir) { return func(tb testing.TB, d Dir) { put(tb, d, t) } }
	return []scenario{
		{name: "fresh", prepare: func(testing.TB, Dir) {}},
		{name: "renewal", prepare: func(tb testing.TB, d Dir) {
			install(tb, d, older)
			install(tb, d, old)
		}},
		{name: "migration", prepare: files(theirs)},
		{name: "migration of half a set", prepare: files(texts{theirs[0], theirs[1][:80], nil})},
		{name: "migration of two sets", prepare: files(texts{theirs[0], other[1], other[2]})},
		{name: "migration across directories", prepare: files(theirs), dir: apart},
		{name: "files put over the links", prepare: func(tb testing.TB, d Dir) {
			install(tb, d, older)
			put(tb, d, theirs)
		}},
		{name: "one file put over its link", prepare: func(tb testing.TB, d Dir) {
			install(tb, d, old)
			if err := os.Remove(d.Roots); err != nil {
				tb.Fatal(err)
			}
			write(tb, d.Roots, string(other[2]))
		}},
	}
}

// apart is the three files in three directories, which it makes.
func apart(base string) Dir {
	d := Dir{Key: base + "/k/key.pem", Chain: base + "/c/cert-chain.pem", Roots: base + "/r/root-cert.pem", UID: -1, GID: -1}
	for _, path := range []string{d.Key, d.Chain, d.Roots} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			panic(err)
		}
	}
	return d
}

// inMemory is a directory whose files need no disk, where there is such a
// place: some of these tests sync more than ten thousand times.
func inMemory(tb testing.TB) string {
	tb.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "certdir")
	if err != nil {
		return tb.TempDir()
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// ready is a directory prepared for the scenario, and what it shows.
func (s scenario) ready(tb testing.TB) (Dir, texts) {
	tb.Helper()
	base := inMemory(tb)
	d := dirIn(base)
	if s.dir != nil {
		d = s.dir(base)
	}
	s.prepare(tb, d)
	return d, see(tb, d)
}

// wholeOldOrNew insists that what everybody reads is the one or the other, and
// tells which.
func wholeOldOrNew(tb testing.TB, d Dir, old texts, set Set) (isNew bool) {
	tb.Helper()
	now := see(tb, d)
	if equal(now, textsOf(tb, set)) {
		shows(tb, d, set)
		return true
	}
	if !equal(now, old) {
		tb.Error("the three names show neither the old nor the new")
		return false
	}
	want, wantErr := parse(old, [3]string{d.Key, d.Chain, d.Roots})
	switch got, err := d.Load(); {
	case (err == nil) != (wantErr == nil):
		tb.Errorf("Load of the old set: %v, not %v", err, wantErr)
	case err == nil && !equal(textsOf(tb, got), textsOf(tb, want)):
		tb.Error("Load gives neither the old nor the new")
	}
	return false
}

// recovers insists that the next Install succeeds, and tidies up.
func recovers(tb testing.TB, d Dir, next Set) {
	tb.Helper()
	install(tb, d, next)
	shows(tb, d, next)
	tidy(tb, d)
}

// TestMain is the test, or the process that installs and dies at one of its
// operations.
func TestMain(m *testing.M) {
	if at := os.Getenv("CERTDIR_DIE_AT"); at != "" {
		if err := installAndDie(at); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// installAndDie installs the set of one Dir into another, and kills itself
// with SIGKILL at an operation, if there are that many.
func installAndDie(at string) error {
	n, err := strconv.Atoi(at)
	if err != nil {
		return err
	}
	set, err := dirIn(os.Getenv("CERTDIR_SET")).Load()
	if err != nil {
		return err
	}
	paths := filepath.SplitList(os.Getenv("CERTDIR_FILES"))
	d := Dir{Key: paths[0], Chain: paths[1], Roots: paths[2], UID: -1, GID: -1}
	d.before = func(string, string) error {
		if n--; n == 0 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				return err
			}
			select {} // until it arrives
		}
		return nil
	}
	s, err := d.Open()
	if err != nil {
		return err
	}
	return s.Install(set)
}

// TestKilledAtEachOperation: the process that installs is killed at its first
// operation on the file system, at its second, and so on until one runs
// through. Each time all readers find a whole set, and the next Install works.
func TestKilledAtEachOperation(t *testing.T) {
	source, set, next := t.TempDir(), newSet(t, "new"), newSet(t, "next")
	put(t, dirIn(source), textsOf(t, set))
	for _, s := range scenarios(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			sawOld, sawNew := 0, 0
			for n := 1; ; n++ {
				d, old := s.ready(t)
				cmd := exec.Command(os.Args[0])
				cmd.Env = append(os.Environ(), noWaitAtExit, "CERTDIR_DIE_AT="+strconv.Itoa(n), "CERTDIR_SET="+source,
					"CERTDIR_FILES="+strings.Join([]string{d.Key, d.Chain, d.Roots}, ":"))
				out, err := cmd.CombinedOutput()
				killed := err != nil && cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
				if err != nil && !killed {
					t.Fatalf("operation %d: %v: %s", n, err, out)
				}
				isNew := wholeOldOrNew(t, d, old, set)
				if isNew {
					sawNew++
				} else {
					sawOld++
				}
				recovers(t, d, next)
				if t.Failed() {
					t.Fatalf("killed at operation %d", n)
				}
				if !killed {
					if !isNew || sawOld < 20 || sawNew < 5 {
						t.Errorf("%d times old, %d times new, new at the end: %v", sawOld, sawNew, isNew)
					}
					return
				}
			}
		})
	}
}

// TestFailureAtEachOperation: the file system refuses one operation, or all
// from one on, as a full disk does. The old set stays, the error says what to
// do, and when the cause has gone the next Install works.
func TestFailureAtEachOperation(t *testing.T) {
	set, next := newSet(t, "new"), newSet(t, "next")
	for _, s := range scenarios(t) {
		for _, f := range []failure{
			{syscall.ENOSPC, "free space on the file system of ", 0, false},
			{syscall.ENOSPC, "free space on the file system of ", 0, true},
			{syscall.EROFS, "add ReadWritePaths=", 0, false},
			{syscall.EACCES, "must own ", 0, false},
			{syscall.EIO, "look into the kernel's log", 0, false},
		} {
			t.Run(fmt.Sprintf("%s/%v lasting %v", s.name, f.errno, f.lasting), func(t *testing.T) {
				t.Parallel()
				for ranThrough := false; !ranThrough; {
					f.at++
					d, old := s.ready(t)
					ranThrough = f.happen(t, d, old, set)
					recovers(t, d, next)
					if t.Failed() {
						t.Fatalf("failed at operation %d", f.at)
					}
				}
				if f.at < 40 {
					t.Errorf("only %d operations", f.at)
				}
			})
		}
	}
}

type failure struct {
	errno   syscall.Errno
	says    string
	at      int // the number of the operation
	lasting bool
}

// happen has one Install fail, and tells whether it had fewer operations.
func (f failure) happen(t *testing.T, d Dir, old texts, set Set) (ranThrough bool) {
	count, failed := 0, ""
	faulty := d
	faulty.before = func(operation, path string) error {
		if count++; count < f.at || count > f.at && !f.lasting {
			return nil
		}
		if failed == "" {
			failed = operation + " " + path
		}
		return f.errno
	}
	sink, err := faulty.Open()
	if err == nil {
		err = sink.Install(set)
		sink.Close()
	}
	isNew := wholeOldOrNew(t, d, old, set)
	switch {
	case err == nil && !isNew:
		t.Error("no error, and the old set")
	case err != nil && isNew && !strings.HasPrefix(failed, "sync "):
		t.Errorf("the new set, and an error at %q: %v", failed, err)
	case err != nil:
		wantError(t, err, f.errno, f.says, " "+filepath.Dir(filepath.Dir(d.Key)))
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("the error has several lines: %v", err)
		}
	}
	return failed == ""
}

// record installs, and lists the operations with paths from base.
func record(t *testing.T, d Dir, base string, set Set) []string {
	t.Helper()
	var log []string
	d.before = func(operation, path string) error {
		rel, err := filepath.Rel(base, path)
		if err != nil {
			return err
		}
		log = append(log, operation+" "+rel)
		return nil
	}
	install(t, d, set)
	return log
}

// changes are the operations that change the disk, or make changes last.
var changes = []string{"make", "write", "change the mode of", "change the owner of", "link", "replace", "remove", "sync"}

func isChange(line string) bool {
	return slices.ContainsFunc(changes, func(c string) bool { return strings.HasPrefix(line, c+" ") })
}

// TestOperations holds the order of the changes to what testdata lists. Set
// CERTDIR_UPDATE to write the lists anew.
func TestOperations(t *testing.T) {
	for _, s := range scenarios(t)[:3] {
		t.Run(s.name, func(t *testing.T) {
			d, _ := s.ready(t)
			log := slices.DeleteFunc(record(t, d, filepath.Dir(d.Key), newSet(t, "new")), func(line string) bool { return !isChange(line) })
			got := strings.Join(log, "\n") + "\n"
			file := filepath.Join("testdata", s.name+".txt")
			if os.Getenv("CERTDIR_UPDATE") != "" {
				write(t, file, got)
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the operations are\n%s\nnot, as %s has them,\n%s", got, file, want)
			}
		})
	}
}

// TestNothingLeadsToWhatIsNotOnTheDisk: a model of a disk that keeps only what
// was synced. When a link is put in place, all that it leads to is surely
// there; when something is removed, the last swap surely is.
func TestNothingLeadsToWhatIsNotOnTheDisk(t *testing.T) {
	for _, s := range scenarios(t) {
		t.Run(s.name, func(t *testing.T) {
			d, _ := s.ready(t)
			base := filepath.Dir(d.Key)
			if s.dir != nil {
				base = filepath.Dir(base)
			}
			if err := checkDurability(record(t, d, base, newSet(t, "new"))); err != nil {
				t.Error(err)
			}
		})
	}
}

func checkDurability(log []string) error {
	content, entries := map[string]bool{}, map[string]bool{} // not yet on the disk
	links := 0
	for i, line := range log {
		cut := strings.LastIndexByte(line, ' ')
		operation, path := line[:cut], line[cut+1:]
		switch operation {
		case "make":
			content[path], entries[path] = true, true
		case "write", "change the mode of", "change the owner of":
			content[path] = true
		case "sync":
			delete(content, path)
			for entry := range entries {
				if filepath.Dir(entry) == path {
					delete(entries, entry)
				}
			}
		case "link":
			entries[path] = true
		case "replace":
			links++
			delete(entries, filepath.Join(filepath.Dir(path), temporary(filepath.Base(path))))
			if len(content)+len(entries) > 0 {
				return fmt.Errorf("operation %d, %s: not on the disk: %v %v", i, line, content, entries)
			}
			entries[path] = true
		case "remove":
			if len(entries) > 0 {
				return fmt.Errorf("operation %d, %s: not on the disk: %v", i, line, entries)
			}
		}
	}
	if links == 0 || len(content)+len(entries) > 0 {
		return fmt.Errorf("after %d links, not on the disk: %v %v", links, content, entries)
	}
	return nil
}

// TestInjectedErrorIsTheOperationsOwn, with its name and path.
func TestInjectedErrorIsTheOperationsOwn(t *testing.T) {
	d := dirIn(t.TempDir())
	boom := errors.New("boom")
	d.before = func(operation, _ string) error {
		if operation == "lock" {
			return boom
		}
		return nil
	}
	_, err := d.Open()
	wantError(t, err, boom, "lock "+filepath.Dir(d.Key)+"/.citadel/lock: boom")
}
