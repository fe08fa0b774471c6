package main

import (
	"context"
	"fmt"
	"io"

	"citadel/ca/regular"
	"citadel/ca/trust"
	"citadel/cmd/citadelctl/inspect"
)

// readFile reads a file of certificates whole, but not one without end.
func readFile(path string) ([]byte, error) {
	text, err := regular.Read(path)
	if err != nil {
		return nil, fileError(err)
	}
	return text, nil
}

func readAll(r io.Reader, name string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, regular.Longest+1))
	switch {
	case err != nil:
		return nil, fileError(err)
	case len(text) > regular.Longest:
		return nil, fmt.Errorf("%s is larger than %d bytes, which no certificates or tokens need", name, regular.Longest)
	}
	return text, nil
}

// readInput reads standard input, for as long as ctx lives.
func readInput(ctx context.Context, stdin io.Reader, name string) ([]byte, error) {
	return readWhile(ctx, func() ([]byte, error) { return readAll(stdin, name) })
}

// readWhile reads for as long as ctx lives. A read that ctx leaves behind ends
// with the process.
func readWhile(ctx context.Context, read func() ([]byte, error)) ([]byte, error) {
	type result struct {
		text []byte
		err  error
	}
	done := make(chan result, 1)
	go func() {
		text, err := read()
		done <- result{text, err}
	}()
	select {
	case r := <-done:
		return r.text, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// readRoots reads the file of --root-cert; without one it returns no roots.
func readRoots(path string) (inspect.Roots, error) {
	if path == "" {
		return inspect.Roots{}, nil
	}
	text, err := readFile(path)
	if err != nil {
		return inspect.Roots{}, fmt.Errorf("read the roots of --root-cert: %w", err)
	}
	certs, err := trust.ParseCertificates(text)
	if err != nil {
		return inspect.Roots{}, fmt.Errorf("read the roots of --root-cert: %s %w", path, err)
	}
	return inspect.Roots{From: path, Certs: certs}, nil
}
