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
	"citadel/ca/trust"
)

// state is what the agent keeps beside the files: where it joined, and while it
// joins, the key that the token is counted for.
type state struct{ folder string }

const (
	keyName    = "joining-key.pem"
	joinedName = "joined.json"
)

// Load is of nodeagent.JoinKey.
func (s state) Load() (crypto.Signer, error) {
	text, err := os.ReadFile(filepath.Join(s.folder, keyName))
	if err != nil {
		return nil, fmt.Errorf("read the key to join with: %w", err)
	}
	key, err := trust.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("the key to join with, %s, %w: remove it", filepath.Join(s.folder, keyName), err)
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
	text, err := os.ReadFile(filepath.Join(s.folder, joinedName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read where the host joined: %w", err)
	}
	var j joined
	if err := json.Unmarshal(text, &j); err != nil || j.Address == "" {
		return "", fmt.Errorf("%s is damaged: give --ca-address, or remove it", filepath.Join(s.folder, joinedName))
	}
	return j.Address, nil
}

// write replaces a file as one, on the disk when it returns.
func (s state) write(name string, text []byte) (err error) {
	if err := os.MkdirAll(s.folder, 0o700); err != nil {
		return fmt.Errorf("make the state folder: %w: give another by --state-dir", err)
	}
	path := filepath.Join(s.folder, name)
	file, err := os.CreateTemp(s.folder, "."+name+"-*") // with mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = file.Write(text)
	err = errors.Join(err, file.Sync(), file.Close())
	if err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(file.Name()))
	}
	return nil
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
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("the token file %s is empty", file)
	}
	return token, nil
}

// readRoots reads the roots of --ca-root, and of --root-cert where a person put
// only that.
func readRoots(files ...string) ([]*x509.Certificate, error) {
	var roots []*x509.Certificate
	for i, file := range files {
		if file == "" {
			continue
		}
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) && i > 0 {
			continue
		}
		if err != nil {
			return roots, fmt.Errorf("read the roots of the CA: %w", err)
		}
		certs, err := trust.ParseCertificates(text)
		if err != nil {
			return roots, fmt.Errorf("%s %w", file, err)
		}
		roots = append(roots, certs...)
	}
	return roots, nil
}
