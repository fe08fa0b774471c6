package certdir

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"citadel/ca/trust"
)

// newSet makes a set with a root of its own, named after it.
func newSet(tb testing.TB, name string) Set {
	tb.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			tb.Fatal(err)
		}
		return k
	}
	sign := func(template, parent *x509.Certificate, pub, signer *ecdsa.PrivateKey) *x509.Certificate {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &pub.PublicKey, signer)
		if err != nil {
			tb.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			tb.Fatal(err)
		}
		return cert
	}
	born := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	rootKey, leafKey := key(), key()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: born, NotAfter: born.AddDate(10, 0, 0)}
	root := sign(template, template, rootKey, rootKey)
	leaf := sign(&x509.Certificate{SerialNumber: big.NewInt(2), KeyUsage: x509.KeyUsageDigitalSignature, NotBefore: born, NotAfter: born.AddDate(1, 0, 0),
		URIs: []*url.URL{{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/vm/sa/web"}}}, root, leafKey, rootKey)
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		tb.Fatal(err)
	}
	return Set{
		SVID:  &x509svid.SVID{ID: id, Certificates: []*x509.Certificate{leaf}, PrivateKey: leafKey},
		Roots: x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{root}),
	}
}

func textsOf(tb testing.TB, set Set) texts {
	tb.Helper()
	t, err := set.marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// dirIn is the usual three files in a directory.
func dirIn(path string) Dir {
	return Dir{Key: filepath.Join(path, "key.pem"), Chain: filepath.Join(path, "cert-chain.pem"), Roots: filepath.Join(path, "root-cert.pem"), UID: -1, GID: -1}
}

func open(tb testing.TB, d Dir) *Sink {
	tb.Helper()
	s, err := d.Open()
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

func install(tb testing.TB, d Dir, set Set) {
	tb.Helper()
	s := open(tb, d)
	if err := s.Install(set); err != nil {
		tb.Fatal(err)
	}
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
}

// put writes the three files as the ancestor and people do; nil is none.
func put(tb testing.TB, d Dir, t texts) {
	tb.Helper()
	for i, path := range []string{d.Key, d.Chain, d.Roots} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			tb.Fatal(err)
		}
		if t[i] != nil {
			write(tb, path, string(t[i]))
		}
	}
}

func write(tb testing.TB, path, text string) {
	tb.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
}

// see reads the three stable names as any program does.
func see(tb testing.TB, d Dir) texts {
	tb.Helper()
	var t texts
	for i, path := range []string{d.Key, d.Chain, d.Roots} {
		text, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			tb.Fatal(err)
		}
		t[i] = text
	}
	return t
}

// seeCurrent reads the three files of the directory that "current" leads to,
// resolved once.
func seeCurrent(tb testing.TB, d Dir) texts {
	tb.Helper()
	root, err := os.OpenRoot(filepath.Join(filepath.Dir(d.Key), ".citadel", "current"))
	if err != nil {
		tb.Fatal(err)
	}
	defer root.Close()
	var t texts
	for i, name := range []string{"key.pem", "cert-chain.pem", "root-cert.pem"} {
		if t[i], err = root.ReadFile(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			tb.Fatal(err)
		}
	}
	return t
}

func equal(a, b texts) bool {
	return slices.EqualFunc(a[:], b[:], func(x, y []byte) bool { return string(x) == string(y) && (x == nil) == (y == nil) })
}

// shows insists that all ways of reading give this set.
func shows(tb testing.TB, d Dir, want Set) {
	tb.Helper()
	if !equal(see(tb, d), textsOf(tb, want)) {
		tb.Error("the three names show something else")
	}
	if !equal(seeCurrent(tb, d), textsOf(tb, want)) {
		tb.Error("current shows something else")
	}
	got, err := d.Load()
	if err != nil {
		tb.Fatalf("Load: %v", err)
	}
	if !equal(textsOf(tb, got), textsOf(tb, want)) || got.SVID.ID != want.SVID.ID {
		tb.Error("Load gives something else")
	}
}

func names(tb testing.TB, path string) []string {
	tb.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		tb.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// tidy insists that nothing lies about but the set in force and the one before.
func tidy(tb testing.TB, d Dir, foreign ...string) {
	tb.Helper()
	store := filepath.Join(filepath.Dir(d.Key), ".citadel")
	current, err := os.Readlink(filepath.Join(store, "current"))
	if err != nil {
		tb.Fatal(err)
	}
	rest := slices.DeleteFunc(names(tb, store), func(n string) bool { return n == "lock" || n == "current" || n == current })
	if len(rest) > 1 {
		tb.Errorf("beside generation %s, the store holds %q", current, rest)
	}
	want := map[string][]string{filepath.Dir(d.Key): {".citadel"}}
	for _, path := range []string{d.Key, d.Chain, d.Roots} {
		want[filepath.Dir(path)] = append(want[filepath.Dir(path)], filepath.Base(path))
	}
	for dir, w := range want {
		w = append(w, foreign...)
		slices.Sort(w)
		if got := names(tb, dir); !slices.Equal(got, w) {
			tb.Errorf("%s holds %q, not %q", dir, got, w)
		}
	}
}

func TestFirstSetInAnEmptyDirectory(t *testing.T) {
	d := dirIn(t.TempDir())
	if _, err := d.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load where nothing is: %v", err)
	}
	s := open(t, d)
	if _, err := d.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load after Open: %v", err)
	}
	set := newSet(t, "a")
	if err := s.Install(set); err != nil {
		t.Fatal(err)
	}
	shows(t, d, set)
	tidy(t, d)
}

func TestEverySetReplacesTheLastAndKeepsOne(t *testing.T) {
	d := dirIn(t.TempDir())
	s := open(t, d)
	for _, name := range []string{"a", "b", "c", "d"} {
		set := newSet(t, name)
		if err := s.Install(set); err != nil {
			t.Fatal(err)
		}
		shows(t, d, set)
		tidy(t, d)
	}
	if got := names(t, filepath.Join(filepath.Dir(d.Key), ".citadel")); !slices.Equal(got, []string{"4", "5", "current", "lock"}) {
		t.Errorf("the store holds %q", got)
	}
}

// TestReaderKeepsTheGenerationThatItOpened for one swap: time to read three
// files.
func TestReaderKeepsTheGenerationThatItOpened(t *testing.T) {
	d, a := dirIn(t.TempDir()), newSet(t, "a")
	install(t, d, a)
	root, err := os.OpenRoot(filepath.Join(filepath.Dir(d.Key), ".citadel", "current"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	install(t, d, newSet(t, "b"))
	if text, err := root.ReadFile("key.pem"); err != nil || string(text) != string(textsOf(t, a)[0]) {
		t.Errorf("the key of the generation before: %v", err)
	}
}

func TestFilesInDifferentDirectories(t *testing.T) {
	base := t.TempDir()
	d := Dir{Key: base + "/private/tls.key", Chain: base + "/public/tls.crt", Roots: base + "/anchors/mesh.pem", UID: -1, GID: -1}
	for _, dir := range []string{"private", "public", "anchors"} {
		if err := os.Mkdir(filepath.Join(base, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put(t, d, textsOf(t, newSet(t, "old")))
	for _, name := range []string{"a", "b"} {
		set := newSet(t, name)
		install(t, d, set)
		shows(t, d, set)
		tidy(t, d)
	}
}

func TestRelativePathsAreThoseOfTheStart(t *testing.T) {
	base := t.TempDir()
	t.Chdir(base)
	if err := os.Mkdir("roots", 0o755); err != nil {
		t.Fatal(err)
	}
	s := open(t, Dir{Key: "key.pem", Chain: "cert-chain.pem", Roots: "roots/root-cert.pem", UID: -1, GID: -1})
	t.Chdir(t.TempDir())
	set := newSet(t, "a")
	if err := s.Install(set); err != nil {
		t.Fatal(err)
	}
	d := dirIn(base)
	d.Roots = base + "/roots/root-cert.pem"
	shows(t, d, set)
}

// TestDirectoryCanBeMountedElsewhere: the links within it are relative.
func TestDirectoryCanBeMountedElsewhere(t *testing.T) {
	base, set := t.TempDir(), newSet(t, "a")
	if err := os.Mkdir(base+"/certs", 0o755); err != nil {
		t.Fatal(err)
	}
	install(t, dirIn(base+"/certs"), set)
	if err := os.Rename(base+"/certs", base+"/moved"); err != nil {
		t.Fatal(err)
	}
	shows(t, dirIn(base+"/moved"), set)
}

// TestTakesOverWhatIsThere: whatever the three names show, the set replaces it,
// and foreign files stay.
func TestTakesOverWhatIsThere(t *testing.T) {
	old, other := textsOf(t, newSet(t, "old")), textsOf(t, newSet(t, "other"))
	for name, was := range map[string]texts{
		"a whole set":                 old,
		"key and chain do not match":  {other[0], old[1], old[2]},
		"a chain that was cut off":    {old[0], old[1][:100], old[2]},
		"cut off in the first word":   {old[0][:5], old[1], old[2]},
		"an empty chain":              {old[0], {}, old[2]},
		"zeros of a power failure":    {old[0], make([]byte, 4096), old[2]},
		"no key":                      {nil, old[1], old[2]},
		"roots alone":                 {nil, nil, old[2]},
		"text before the certificate": {old[0], append([]byte("subject=/CN=x\n"), old[1]...), old[2]},
		"parameters before the key":   {append([]byte("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"), old[0]...), old[1], old[2]},
	} {
		t.Run(name, func(t *testing.T) {
			d, set := dirIn(t.TempDir()), newSet(t, "new")
			put(t, d, was)
			write(t, filepath.Join(filepath.Dir(d.Key), "notes.txt"), "of a person")
			install(t, d, set)
			shows(t, d, set)
			tidy(t, d, "notes.txt")
		})
	}
}

// TestFilesPutOverTheLinks: a person copies a new set to the names that were
// links, and it counts.
func TestFilesPutOverTheLinks(t *testing.T) {
	d, byHand, set := dirIn(t.TempDir()), newSet(t, "by hand"), newSet(t, "new")
	install(t, d, newSet(t, "old"))
	put(t, d, textsOf(t, byHand))
	got, err := d.Load()
	if err != nil || !equal(textsOf(t, got), textsOf(t, byHand)) {
		t.Errorf("Load: %v", err)
	}
	install(t, d, set)
	shows(t, d, set)
	tidy(t, d)
}

// TestStoreWasRemoved from under an agent that runs.
func TestStoreWasRemoved(t *testing.T) {
	d, set := dirIn(t.TempDir()), newSet(t, "b")
	s := open(t, d)
	if err := s.Install(newSet(t, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(filepath.Dir(d.Key), ".citadel")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load: %v", err)
	}
	if err := s.Install(set); err != nil {
		t.Fatal(err)
	}
	shows(t, d, set)
	if _, err := d.Open(); err == nil {
		t.Error("the new store is not locked")
	}
}

func TestOneAgentPerDirectory(t *testing.T) {
	d := dirIn(t.TempDir())
	s := open(t, d)
	if err := s.Install(newSet(t, "a")); err != nil {
		t.Fatal(err)
	}
	other := d
	other.CertMode = 0o600
	_, err := other.Open()
	wantError(t, err, syscall.EWOULDBLOCK, ".citadel/lock", "another agent holds "+filepath.Dir(d.Key), "its own directory")
	if mode := modeOf(t, filepath.Join(filepath.Dir(d.Key), ".citadel")); mode != 0o755 {
		t.Errorf("who was refused changed the store's mode to %o", mode)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	install(t, other, newSet(t, "b"))
	if err := s.Close(); err != nil {
		t.Errorf("Close again: %v", err)
	}
}

// TestAnotherAgentTookTheNewStore: the first one's lock is on a file that is
// no more, and it does not write beside the second.
func TestAnotherAgentTookTheNewStore(t *testing.T) {
	d, theirs := dirIn(t.TempDir()), newSet(t, "theirs")
	first := open(t, d)
	if err := os.RemoveAll(filepath.Join(filepath.Dir(d.Key), ".citadel")); err != nil {
		t.Fatal(err)
	}
	second := open(t, d)
	if err := second.Install(theirs); err != nil {
		t.Fatal(err)
	}
	wantError(t, first.Install(newSet(t, "ours")), syscall.EWOULDBLOCK, "another agent holds")
	shows(t, d, theirs)
}

func modeOf(tb testing.TB, path string) fs.FileMode {
	tb.Helper()
	info, err := os.Stat(path)
	if err != nil {
		tb.Fatal(err)
	}
	return info.Mode().Perm()
}

func wantError(tb testing.TB, err, is error, contains ...string) {
	tb.Helper()
	if err == nil {
		tb.Error("no error")
		return
	}
	if is != nil && !errors.Is(err, is) {
		tb.Errorf("%v is not %v", err, is)
	}
	for _, text := range contains {
		if !strings.Contains(err.Error(), text) {
			tb.Errorf("%q does not contain %q", err, text)
		}
	}
}

func TestModes(t *testing.T) {
	for _, c := range []struct{ key, cert, wantKey, wantCert, wantStore fs.FileMode }{
		{0, 0, 0o600, 0o644, 0o755},
		{0o600, 0o600, 0o600, 0o600, 0o700},
		{0o640, 0o640, 0o640, 0o640, 0o750},
		{0o640, 0, 0o640, 0o644, 0o755},
		{0o400, 0o440, 0o400, 0o440, 0o750},
	} {
		for _, umask := range []int{0, 0o022, 0o027, 0o077} {
			t.Run(fmt.Sprintf("%o %o umask %o", c.key, c.cert, umask), func(t *testing.T) {
				d := dirIn(t.TempDir())
				d.KeyMode, d.CertMode = c.key, c.cert
				defer syscall.Umask(syscall.Umask(umask))
				install(t, d, newSet(t, "a"))
				store := filepath.Join(filepath.Dir(d.Key), ".citadel")
				for path, want := range map[string]fs.FileMode{d.Key: c.wantKey, d.Chain: c.wantCert, d.Roots: c.wantCert,
					store: c.wantStore, store + "/current": c.wantStore, store + "/lock": 0o600} {
					if got := modeOf(t, path); got != want {
						t.Errorf("%s has mode %o, not %o", path, got, want)
					}
				}
			})
		}
	}
}

// TestModesFollowTheSettings at the next set, the store's too.
func TestModesFollowTheSettings(t *testing.T) {
	d := dirIn(t.TempDir())
	install(t, d, newSet(t, "a"))
	d.CertMode = 0o600
	install(t, d, newSet(t, "b"))
	for _, path := range []string{d.Key, d.Chain, filepath.Join(filepath.Dir(d.Key), ".citadel")} {
		if got := modeOf(t, path) & 0o077; got != 0 {
			t.Errorf("%s is open to others: %o", path, got)
		}
	}
}

func TestSettingsThatCannotBeRight(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*Dir)
		says string
	}{
		"no key":              {func(d *Dir) { d.Key = "" }, "no file is named for the key"},
		"no roots":            {func(d *Dir) { d.Roots = "" }, "no file is named for the roots"},
		"one file twice":      {func(d *Dir) { d.Chain = filepath.Dir(d.Key) + "/./key.pem" }, "name three files"},
		"in the store":        {func(d *Dir) { d.Chain = filepath.Dir(d.Key) + "/.citadel/current" }, "outside it"},
		"a key for all":       {func(d *Dir) { d.KeyMode = 0o644 }, "mode 0644 is not one for a private key"},
		"a key for nobody":    {func(d *Dir) { d.KeyMode = 0o040 }, "mode 040 is not one for a private key"},
		"roots for all":       {func(d *Dir) { d.CertMode = 0o666 }, "mode 0666 is not one for certificates"},
		"a set-uid key":       {func(d *Dir) { d.KeyMode = 0o600 | fs.ModeSetuid }, "not one for a private key"},
		"a user below none":   {func(d *Dir) { d.UID = -2 }, "use -1"},
		"no directory":        {func(d *Dir) { d.Key = filepath.Dir(d.Key) + "/none/key.pem" }, "make this directory"},
		"no second directory": {func(d *Dir) { d.Roots = filepath.Dir(d.Key) + "/none/root.pem" }, "make this directory"},
	} {
		t.Run(name, func(t *testing.T) {
			d := dirIn(t.TempDir())
			home := filepath.Dir(d.Key)
			c.edit(&d)
			s, err := d.Open()
			wantError(t, err, nil, c.says)
			if s != nil {
				t.Error("a sink beside the error")
			}
			if got := names(t, home); len(got) > 0 {
				t.Errorf("%q was made", got)
			}
			_, err = d.Load()
			wantError(t, err, nil, c.says)
		})
	}
}

func TestSetsThatAreNotWhole(t *testing.T) {
	a, b := newSet(t, "a"), newSet(t, "b")
	svid := func(edit func(*x509svid.SVID)) Set {
		s := *a.SVID
		edit(&s)
		return Set{SVID: &s, Roots: a.Roots}
	}
	d := dirIn(t.TempDir())
	s := open(t, d)
	if err := s.Install(a); err != nil {
		t.Fatal(err)
	}
	for says, set := range map[string]Set{
		"without key, certificates or roots":                    {},
		"the roots holds no PEM certificate":                    {SVID: a.SVID, Roots: x509bundle.New(a.SVID.ID.TrustDomain())},
		"the certificate chain holds no PEM certificate":        svid(func(s *x509svid.SVID) { s.Certificates = nil }),
		"does not belong to the first certificate of the certi": svid(func(s *x509svid.SVID) { s.PrivateKey = b.SVID.PrivateKey }),
		"without key, certificates":                             svid(func(s *x509svid.SVID) { s.PrivateKey = nil }),
		"has no SPIFFE ID": svid(func(s *x509svid.SVID) {
			root := *b.Roots.X509Authorities()[0]
			template := &x509.Certificate{SerialNumber: big.NewInt(3)}
			der, err := x509.CreateCertificate(rand.Reader, template, template, s.PrivateKey.Public(), s.PrivateKey)
			if err != nil {
				t.Fatal(err)
			}
			root.Raw = der
			s.Certificates = []*x509.Certificate{&root}
		}),
	} {
		wantError(t, s.Install(set), nil, says)
	}
	shows(t, d, a)
	if got := names(t, filepath.Join(filepath.Dir(d.Key), ".citadel")); !slices.Equal(got, []string{"1", "2", "current", "lock"}) {
		t.Errorf("the store holds %q", got)
	}
}

// TestLoadReadsEarlierKeys: the ancestor wrote PKCS#1 and SEC 1, which SPIFFE's
// own reader refuses.
func TestLoadReadsEarlierKeys(t *testing.T) {
	d, set := dirIn(t.TempDir()), newSet(t, "a")
	was := textsOf(t, set)
	var err error
	if was[0], err = trust.MarshalLegacyKey(set.SVID.PrivateKey); err != nil {
		t.Fatal(err)
	}
	put(t, d, was)
	got, err := d.Load()
	if err != nil || !equal(textsOf(t, got), textsOf(t, set)) {
		t.Errorf("Load: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	a, b := textsOf(t, newSet(t, "a")), textsOf(t, newSet(t, "b"))
	for name, c := range map[string]struct {
		texts    texts
		notExist bool
		says     []string
	}{
		"nothing":          {texts{}, true, []string{"no key and certificate are there yet", "key.pem"}},
		"roots alone":      {texts{nil, nil, a[2]}, true, []string{"no key and certificate are there yet"}},
		"no key":           {texts{nil, a[1], a[2]}, false, []string{"not complete", "key.pem is missing", "copy all three"}},
		"no chain":         {texts{a[0], nil, a[2]}, false, []string{"not complete", "cert-chain.pem is missing"}},
		"no chain, roots":  {texts{a[0], nil, nil}, false, []string{"cert-chain.pem and ", "root-cert.pem is missing"}},
		"two sets":         {texts{b[0], a[1], a[2]}, false, []string{"key.pem does not belong to", "cert-chain.pem", "different sets"}},
		"half a chain":     {texts{a[0], a[1][:200], a[2]}, false, []string{"cert-chain.pem is damaged"}},
		"an empty key":     {texts{{}, a[1], a[2]}, false, []string{"key.pem holds no PEM private key"}},
		"key for chain":    {texts{a[0], a[0], a[2]}, false, []string{"cert-chain.pem holds a PEM block"}},
		"too large a root": {texts{a[0], a[1], make([]byte, 1<<20+1)}, false, []string{"root-cert.pem is larger than"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := dirIn(t.TempDir())
			put(t, d, c.texts)
			_, err := d.Load()
			wantError(t, err, nil, c.says...)
			if errors.Is(err, fs.ErrNotExist) != c.notExist {
				t.Errorf("ErrNotExist of %v is not %v", err, c.notExist)
			}
		})
	}
}
