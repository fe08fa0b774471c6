package main

import (
	"crypto"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"citadel/ca/caclient"
	"citadel/ca/regular"
	"citadel/ca/trust"
)

// state is what the agent keeps beside the files: where it joined, and while it
// joins, the key that the token is counted for.
type state struct{ folder string }

const (
	keyName    = "joining-key.pem"
	joinedName = "joined.json"
	owedName   = "reload-owed"
)

// Load is of nodeagent.JoinKey.
func (s state) Load() (crypto.Signer, error) {
	text, err := regular.Read(filepath.Join(s.folder, keyName))
	if err != nil {
		return nil, fmt.Errorf("read the key to join with: %w", err)
	}
	key, err := trust.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("the key to join with, %s, %w: remove it, and bring a fresh join token", filepath.Join(s.folder, keyName), err)
	}
	return key, nil
}

// Save is of nodeagent.JoinKey.
func (s state) Save(key crypto.Signer) error {
	text, err := trust.MarshalKey(key)
	if err != nil {
		return err
	}
	return s.write(keyName, text)
}

// Remove is of nodeagent.JoinKey.
func (s state) Remove() error {
	if err := os.Remove(filepath.Join(s.folder, keyName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the key that the host joined with: %w", err)
	}
	return nil
}

type joined struct {
	Address string `json:"address"`
}

func (s state) saveAddress(address string) error {
	text, err := json.Marshal(joined{address})
	if err != nil {
		return fmt.Errorf("encode where the host joined: %w", err)
	}
	return s.write(joinedName, text)
}

// address is where the host joined; empty if it did not.
func (s state) address() (string, error) {
	text, err := regular.Read(filepath.Join(s.folder, joinedName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read where the host joined: %w", err)
	}
	var j joined
	if err := json.Unmarshal(text, &j); err != nil || j.Address == "" {
		return "", fmt.Errorf("%s, which says where the host joined, is damaged: give --ca-address, or remove it", filepath.Join(s.folder, joinedName))
	}
	return j.Address, nil
}

// owed tells whether programs had not been made to read the files when the
// agent ended.
func (s state) owed() bool {
	_, err := os.Lstat(filepath.Join(s.folder, owedName))
	return err == nil
}

// owes keeps whether they have not.
func (s state) owes(owed bool) error {
	if owed {
		return s.write(owedName, nil)
	}
	if err := os.Remove(filepath.Join(s.folder, owedName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the note that programs have to read the files: %w", err)
	}
	return nil
}

// write replaces a file as one, on the disk when it returns. What a crash left
// of an earlier try is overwritten; there is one agent of a folder.
func (s state) write(name string, text []byte) error {
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w: give another by --state-dir", err)
	}
	path := filepath.Join(s.folder, name)
	temp := filepath.Join(s.folder, "."+name+".new")
	err := os.Remove(temp)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = writeNew(temp, text)
	}
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err == nil {
		err = syncFolder(s.folder)
	}
	if err != nil {
		_ = os.Remove(temp) // the next try does
		return fmt.Errorf("write %s: %w: free space there or make it writable, or give another folder by --state-dir", path, bare(err))
	}
	return nil
}

// writeNew makes a file that nobody else can read, and puts it on the disk.
func writeNew(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// bare is an error of the file system without the temporary file's name.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
}

// readJoin reads the join token of a file; fs.ErrNotExist says that there is
// none.
func readJoin(file string) (caclient.Join, error) {
	text, err := readToken(file)
	if err != nil {
		return caclient.Join{}, err
	}
	join, err := caclient.ParseJoin(text)
	if err != nil {
		return caclient.Join{}, fmt.Errorf("%s %w", file, err)
	}
	return join, nil
}

// readToken reads a token of a file; fs.ErrNotExist says that there is none.
func readToken(file string) (string, error) {
	if file == "" {
		return "", fs.ErrNotExist
	}
	text, err := regular.Read(file)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("the token file %s is empty: write the token to it", file)
	}
	if strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("the token file %s holds no token: one is a single line without spaces", file)
	}
	return token, nil
}

// readRoots reads the roots of --ca-root, and of --root-cert where a person put
// only that. What one of them holds counts whatever is wrong with the other.
func readRoots(caRoot, rootCert string) ([]*x509.Certificate, error) {
	roots, err := rootsOf(caRoot)
	if err != nil {
		err = fmt.Errorf("--ca-root: %w", err)
	}
	more, moreErr := rootsOf(rootCert)
	if errors.Is(moreErr, fs.ErrNotExist) {
		moreErr = nil // it comes with the first certificate
	}
	if err == nil && moreErr != nil {
		err = fmt.Errorf("--root-cert: %w", moreErr)
	}
	return append(roots, more...), err
}

func rootsOf(file string) ([]*x509.Certificate, error) {
	if file == "" {
		return nil, nil
	}
	text, err := regular.Read(file)
	if err != nil {
		return nil, err
	}
	roots, err := trust.ParseCertificates(text)
	if err != nil {
		return nil, fmt.Errorf("%s %w", file, err)
	}
	return roots, nil
}
