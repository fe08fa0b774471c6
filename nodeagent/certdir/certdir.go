// Package certdir is a sink of the node agent: it keeps a workload's key,
// certificate chain and roots in three files, and replaces them as one.
//
// Beside the key stands the directory .citadel, the store. Each set that is
// installed becomes a generation: a numbered directory in the store, complete
// and on the disk before anybody is led to it. The link "current" names the
// generation in force, and the three files that people configure are links
// through it:
//
//	/etc/certs/key.pem         -> .citadel/current/key.pem
//	/etc/certs/cert-chain.pem  -> .citadel/current/cert-chain.pem
//	/etc/certs/root-cert.pem   -> .citadel/current/root-cert.pem
//	/etc/certs/.citadel/current -> 8
//	/etc/certs/.citadel/8/{key,cert-chain,root-cert}.pem
//	/etc/certs/.citadel/7/...          the one before, for who is reading it
//	/etc/certs/.citadel/lock
//
// One rename of "current" changes all three. Until it, the three names show
// what they showed before, whatever that was: the files of an agent that wrote
// them in place, a set copied there by hand, half of one, or nothing. A crash
// at any point leaves what was there or what was to be.
//
// Who opens the three names one after the other may have the swap in between,
// as with any three files. Who must not: open the directory .citadel/current
// once and the files in it, or read again when told to reload.
//
// The package refuses to judge certificates beyond that key, leaf and roots
// can be read and belong together, to follow links that it did not make, to
// remove what is not its own, to log, and to read a clock.
package certdir

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"citadel/ca/trust"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Dir says where the three files are and who may read them. The directories
// that hold them must exist; they may differ from each other.
type Dir struct {
	Key   string // path of the private key: PEM, PKCS#8; the store is made beside it
	Chain string // path of the certificate chain: PEM, the leaf first
	Roots string // path of the roots: PEM

	// UID and GID are given the files and the store; -1 leaves what the process
	// makes. Zero is root.
	UID, GID int

	// KeyMode and CertMode are the modes of the key, and of chain and roots; 0
	// stands for 0600 and 0644. Who may read a file may enter and list the
	// store: its mode follows from these two. No umask that leaves the agent its
	// own rights matters.
	KeyMode, CertMode fs.FileMode

	before hook // tests stop here; nil otherwise
}

// Set is what the three files hold. Install leaves out SVID.Hint, for which
// the files have no place.
type Set struct {
	SVID  *x509svid.SVID
	Roots *x509bundle.Bundle
}

// The names of the store and of what is in it.
const (
	storeName   = ".citadel"
	currentName = "current"
	lockName    = "lock"
)

// piece is one of the three files.
type piece struct {
	path   string // its stable name, absolute
	name   string // its name in a generation, whatever the stable one is
	mode   fs.FileMode
	kind   string // how the type of its PEM blocks ends
	target string // what the link at its stable name says
}

func (p piece) base() string { return filepath.Base(p.path) }

// pieces returns the key, the chain and the roots, in this order. It expects
// what checked returned.
func (d Dir) pieces() [3]piece {
	all := [3]piece{
		{path: d.Key, name: "key.pem", mode: d.KeyMode, kind: "PRIVATE KEY"},
		{path: d.Chain, name: "cert-chain.pem", mode: d.CertMode, kind: "CERTIFICATE"},
		{path: d.Roots, name: "root-cert.pem", mode: d.CertMode, kind: "CERTIFICATE"},
	}
	home := filepath.Dir(d.Key)
	for i, p := range all {
		all[i].target = filepath.Join(storeName, currentName, p.name) // keeps working where the directory is mounted elsewhere
		if filepath.Dir(p.path) != home {
			all[i].target = filepath.Join(home, all[i].target)
		}
	}
	return all
}

// storeMode lets those enter who may read one of the files.
func (d Dir) storeMode() fs.FileMode {
	mode, read := fs.FileMode(0o700), d.KeyMode|d.CertMode
	if read&0o040 != 0 {
		mode |= 0o050
	}
	if read&0o004 != 0 {
		mode |= 0o005
	}
	return mode
}

// checked returns d with absolute paths and with its defaults, or the reason
// why it cannot be.
func (d Dir) checked() (Dir, error) {
	seen := []string{}
	for _, f := range []struct {
		path *string
		what string
	}{{&d.Key, "key"}, {&d.Chain, "certificate chain"}, {&d.Roots, "roots"}} {
		if *f.path == "" {
			return Dir{}, fmt.Errorf("no file is named for the %s", f.what)
		}
		path, err := filepath.Abs(*f.path)
		if err != nil {
			return Dir{}, fmt.Errorf("find the %s: %w", f.what, err)
		}
		if slices.Contains(seen, path) {
			return Dir{}, fmt.Errorf("%s is named for the %s and for another file: name three files", path, f.what)
		}
		if slices.Contains(strings.Split(path, "/"), storeName) {
			return Dir{}, fmt.Errorf("%s: %s is the agent's own: name a %s file outside it", path, storeName, f.what)
		}
		*f.path, seen = path, append(seen, path)
	}
	return d.withModes()
}

func (d Dir) withModes() (Dir, error) {
	if d.KeyMode == 0 {
		d.KeyMode = 0o600
	}
	if d.CertMode == 0 {
		d.CertMode = 0o644
	}
	if d.KeyMode&^0o640 != 0 || d.KeyMode&0o400 == 0 {
		return Dir{}, fmt.Errorf("mode %#o is not one for a private key: use 0600 or 0640", uint32(d.KeyMode))
	}
	if d.CertMode&^0o644 != 0 || d.CertMode&0o400 == 0 {
		return Dir{}, fmt.Errorf("mode %#o is not one for certificates: use 0644, 0640 or 0600", uint32(d.CertMode))
	}
	if d.UID < -1 || d.GID < -1 {
		return Dir{}, fmt.Errorf("no user and group have the numbers %d and %d: use -1 to leave them", d.UID, d.GID)
	}
	return d, nil
}

// texts are the contents of the three files, in the order of pieces; nil is
// one that is not there.
type texts [3][]byte

// marshal encodes a set, and refuses one that Load would not read.
func (s Set) marshal() (texts, error) {
	if s.SVID == nil || s.SVID.PrivateKey == nil || s.Roots == nil {
		return texts{}, errors.New("a set without key, certificates or roots cannot be installed")
	}
	key, err := trust.MarshalKey(s.SVID.PrivateKey)
	if err != nil {
		return texts{}, err
	}
	out := texts{key, trust.MarshalCertificates(s.SVID.Certificates), trust.MarshalCertificates(s.Roots.X509Authorities())}
	if _, err := parse(out, [3]string{"the key", "the certificate chain", "the roots"}); err != nil {
		return texts{}, fmt.Errorf("this set cannot be installed: %w", err)
	}
	return out, nil
}

// parse reads a set from its texts; the names are for errors, which never
// quote a text.
func parse(t texts, names [3]string) (Set, error) {
	key, err := trust.ParseKey(t[0])
	if err != nil {
		return Set{}, fmt.Errorf("%s %w", names[0], err)
	}
	var certs [3][]*x509.Certificate
	for i := 1; i < 3; i++ {
		if certs[i], err = trust.ParseCertificates(t[i]); err != nil {
			return Set{}, fmt.Errorf("%s %w", names[i], err)
		}
	}
	leaf := certs[1][0]
	if !trust.SamePublicKey(leaf.PublicKey, key.Public()) {
		return Set{}, fmt.Errorf("%s does not belong to the first certificate of %s: they come from different sets", names[0], names[1])
	}
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return Set{}, fmt.Errorf("the first certificate of %s has no SPIFFE ID: %w", names[1], err)
	}
	return Set{
		SVID:  &x509svid.SVID{ID: id, Certificates: certs[1], PrivateKey: key},
		Roots: x509bundle.FromX509Authorities(id.TrustDomain(), certs[2]),
	}, nil
}

// errChanged is a file that was replaced while it was being read.
var errChanged = errors.New("was replaced while it was being read: try again")

// Load reads the set that the three files show now, whole: what an Install
// beside it does cannot mix two. It needs no lock, writes nothing, and takes
// keys of the older encodings too, as earlier agents wrote them.
//
// Its error is fs.ErrNotExist where neither key nor chain is there yet, and
// another where only some of the files are, where one cannot be read or is
// damaged, and where key and chain come from different sets.
func (d Dir) Load() (Set, error) {
	d, err := d.checked()
	if err != nil {
		return Set{}, err
	}
	for range 100 { // again only where an Install has moved on meanwhile
		t, openErr := d.open()
		if openErr != nil {
			return Set{}, openErr
		}
		var set Set
		set, err = t.load()
		moved := err != nil && (errors.Is(err, errChanged) || t.moved())
		t.close()
		if !moved {
			return set, err
		}
	}
	return Set{}, err
}

// load reads what the three names show, all from one generation.
func (t *tree) load() (Set, error) {
	if err := t.openGeneration(); err != nil {
		return Set{}, err
	}
	shown, err := t.shown()
	if err != nil {
		return Set{}, err
	}
	var names [3]string
	var missing []string
	for i, p := range t.pieces {
		if names[i] = p.path; shown.texts[i] == nil {
			missing = append(missing, p.path)
		}
	}
	switch {
	case shown.texts[0] == nil && shown.texts[1] == nil:
		return Set{}, fmt.Errorf("no key and certificate are there yet: %s and %s: %w", names[0], names[1], fs.ErrNotExist)
	case missing != nil:
		return Set{}, fmt.Errorf("the set is not complete: %s is missing: copy all three files again, or join anew", strings.Join(missing, " and "))
	}
	set, err := parse(shown.texts, names)
	if err != nil {
		return Set{}, fmt.Errorf("%w: copy all three files again, or join anew", err)
	}
	return set, nil
}

// Sink is a Dir held by this process: no other Sink of the same key exists
// until Close or the process's end. It is for one goroutine at a time.
type Sink struct {
	dir  Dir
	lock *os.File
}

// Open makes the store where there is none, and takes its lock. It changes
// nothing that the three files show.
//
// It fails where settings cannot be right, where another process holds the
// lock, and where the store cannot be made.
func (d Dir) Open() (*Sink, error) {
	d, err := d.checked()
	if err != nil {
		return nil, err
	}
	s := &Sink{dir: d}
	t, err := s.begin()
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	t.close()
	return s, nil
}

// Close lets another process have the directory. The files stay.
func (s *Sink) Close() error {
	if s.lock == nil {
		return nil
	}
	// Not by closing alone: a process that is just being started beside us may
	// have the file open for a moment more.
	err := errors.Join(flock(s.lock, syscall.LOCK_UN), s.lock.Close())
	s.lock = nil
	return err
}
